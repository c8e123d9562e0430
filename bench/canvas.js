// Draws slices of 512 x 512 by Canvas 2D and by WebGL 2, in turn; milliseconds of each.
// One pixel is read back after each drawing, so that the time is that until it is done.
(async () => {
  const size = 512, shown = 900, repeats = 40;
  const slices = [...Array(8)].map((_, n) => {
    const hu = new Int16Array(size * size);
    for (let i = 0; i < hu.length; i += 1) hu[i] = ((i * 7919 + n * 104729) % 1400) - 1000;
    return hu;
  });
  const made = () => Object.assign(document.body.appendChild(document.createElement("canvas")),
    { width: shown, height: shown });

  const target = made().getContext("2d");
  target.imageSmoothingEnabled = false;
  const aside = new OffscreenCanvas(size, size);
  const plane = aside.getContext("2d");
  const image = plane.createImageData(size, size);
  const flat = (hu, level, width) => {
    const out = new Uint32Array(image.data.buffer);
    const low = level - width / 2, scale = 255 / width;
    for (let i = 0; i < hu.length; i += 1) {
      let v = (hu[i] - low) * scale;
      v = v < 0 ? 0 : v > 255 ? 255 : v | 0;
      out[i] = 0xff000000 | (v << 16) | (v << 8) | v;
    }
    plane.putImageData(image, 0, 0);
    target.drawImage(aside, 0, 0, shown, shown);
    return target.getImageData(450, 450, 1, 1).data[0];
  };

  const gl = made().getContext("webgl2");
  if (!gl) return { webgl: null };
  const shader = (kind, text) => {
    const one = gl.createShader(kind);
    gl.shaderSource(one, `#version 300 es\nprecision highp float; precision highp isampler2D;${text}`);
    gl.compileShader(one);
    return one;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `out vec2 at; void main() {
    at = vec2(gl_VertexID & 1, gl_VertexID >> 1); gl_Position = vec4(at * 2. - 1., 0, 1); }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `in vec2 at; out vec4 colour;
    uniform isampler2D slice; uniform vec2 view; void main() {
    float hu = float(texture(slice, vec2(at.x, 1. - at.y)).r);
    colour = vec4(vec3(clamp((hu - view.x + view.y / 2.) / view.y, 0., 1.)), 1); }`));
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
    gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
  }
  const read = new Uint8Array(4);
  const shaded = (hu, level, width) => {
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R16I, size, size, 0, gl.RED_INTEGER, gl.SHORT, hu);
    gl.uniform2f(gl.getUniformLocation(program, "view"), level, width);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    gl.readPixels(450, shown - 451, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, read);
    return read[0];
  };

  const found = { canvas: [], webgl: [], first: {}, differ: 0 };
  for (let n = 0; n < repeats; n += 1) {
    const hu = slices[n % slices.length];
    const values = [["canvas", flat], ["webgl", shaded]].map(([name, draw]) => {
      const begun = performance.now();
      const value = draw(hu, 40 + n, 400);
      const spent = performance.now() - begun;
      if (n === 0) found.first[name] = spent; else found[name].push(spent);
      return value;
    });
    found.differ = Math.max(found.differ, Math.abs(values[0] - values[1]));
  }
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  found.renderer = info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
  return found;
})()
