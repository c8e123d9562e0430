"""Entry of a decoder process: `python -m cac_core.dicom.decoder_worker FILE_DESCRIPTOR`.

Receives limits, then compressed frames; answers each with its pixels, or the class of the exception
of the decoder. Started by `cac_core.dicom.decoder` only. The decoder of each transfer syntax is
fixed and does not depend on the installed packages.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from cac_core.dicom.child import limit_child
from cac_core.dicom.datafile import quiet_pydicom
from cac_core.dicom.limits import DecodeLimits

#: Decoder plugin of pydicom for each compressed syntax. RLE uses the decoder of pydicom: the one in
#: Rust is three times faster but panics on corrupt frames. JPEG Extended (12 bits, lossy) is
#: missing: no decoder with a compatible licence reads it.
PLUGINS: dict[UID, str] = {
    uid.JPEGBaseline8Bit: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
    uid.RLELossless: "pydicom",
}


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """How the pixels of a compressed frame are stored."""

    syntax: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool


def available_decoders() -> dict[str, bool]:
    """Return the name of each supported compressed syntax, and whether its decoder is installed."""
    return {
        syntax.name: plugin in get_decoder(syntax).available_plugins
        for syntax, plugin in PLUGINS.items()
    }


def decode(layout: EncodedFrame, frame: bytes) -> NDArray[Any]:
    """Decode one frame in this process, which a corrupt frame may end."""
    syntax = UID(layout.syntax)
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
        "decoding_plugin": PLUGINS[syntax],
    }
    encapsulated = encapsulate([frame], has_bot=False)
    array, _ = get_decoder(syntax).as_array(encapsulated, raw=True, **options)
    return np.ascontiguousarray(array)


def serve(connection: Connection) -> None:
    """Receive frames and send their pixels until the connection closes."""
    limits: DecodeLimits = connection.recv()
    limit_child(limits.memory_bytes)
    while True:
        try:
            layout: EncodedFrame
            layout, frame = connection.recv()
        except EOFError:
            return
        # The kernel ends the process at the limit; a native decoder never returns to Python.
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        try:
            array = decode(layout, frame)
            answer: dict[str, Any] = {"dtype": array.dtype.str, "shape": array.shape}
            pixels = array.tobytes()
        except BaseException as error:  # noqa: BLE001 - panics of Rust decoders are not Exceptions
            answer, pixels = {"error": type(error).__name__}, b""
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Not pickled: a process that a frame has taken over must not reach the other one.
        connection.send_bytes(json.dumps(answer).encode())
        connection.send_bytes(pixels)


if __name__ == "__main__":
    # Ctrl-C reaches the whole process group, but only the parent ends a decoder.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with quiet_pydicom():
        serve(Connection(int(sys.argv[1])))
