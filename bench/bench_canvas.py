"""A slice of 512 x 512 drawn at 900 x 900 by Canvas 2D and by WebGL, without a GPU.

    python -m bench.bench_canvas

The viewer of `cac review` draws with Canvas 2D. WebGL is what Chromium makes of it in software
(SwiftShader), as on a reading-room machine without a GPU.
"""

from __future__ import annotations

from pathlib import Path

from bench.measure import from_pairs, record
from tests.browser import started


def main() -> None:
    """Draw by both in turn, and write the ratio."""
    with started("--enable-unsafe-swiftshader") as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 1000})
        found = page.evaluate(Path(__file__).with_name("canvas.js").read_text(encoding="utf-8"))
    if "canvas" not in found:
        raise SystemExit("This Chromium has no WebGL, not even in software.")
    pairs = [(a / 1e3, b / 1e3) for a, b in zip(found["canvas"], found["webgl"], strict=True)]
    ratio = from_pairs("drawing a slice", "Canvas 2D", "WebGL", pairs)
    print(f"first drawing, ms: {found['first']}; grey values differ by at most {found['differ']}")
    print(f"renderer: {found['renderer']}")
    record("canvas", [ratio], {"renderer": found["renderer"], "first_ms": found["first"]})


if __name__ == "__main__":
    main()
