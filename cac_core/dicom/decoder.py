"""Decodes compressed frames in a process of its own, so that its death costs one study.

Native decoders end their process on some corrupt frames, never return on others, and some reserve
gigabytes. The process is started with the first compressed frame, kept for the next studies, and
started again when it ends. Uncompressed frames need none.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import subprocess
import threading
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cac_core.dicom.child import end_child, start_child
from cac_core.dicom.decoder_worker import EncodedFrame
from cac_core.dicom.limits import DecodeLimits
from cac_core.errors import StudyError
from schemas.codes import StudyReason

#: Time that a decoder may need to start, beside that of its first frame, on a loaded machine.
_START_SECONDS = 60.0
#: The decoder ends itself at the limit; one that is stopped cannot, and is killed after this.
_GRACE_SECONDS = 5.0
#: A decoder may also be ended by something else (the system, short of memory), so that a frame is
#: tried once more.
_TRIES = 2
_LARGEST_ANSWER = 4096
_PIXEL_TYPES = frozenset(("|u1", "|i1", "<u2", "<i2", "<u4", "<i4"))


class FrameDecoder:
    """A decoder process that is started when needed; used by one thread at a time.

    Parameters
    ----------
    limits : time per frame, and memory of the process.
    module : module that the process runs.
    """

    def __init__(
        self,
        limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
        module: str = "cac_core.dicom.decoder_worker",
    ) -> None:
        self._limits, self._module = limits, module
        self._lock = threading.Lock()
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._patience_s = 0.0

    def decode(self, layout: EncodedFrame, frame: bytes) -> NDArray[Any]:
        """Return the stored values of a frame, shape as decoded, not writable.

        Raises
        ------
        StudyError
            `decode_failed` with the class of the decoder's exception; `decoder_died` where the
            process ended or exceeded its limits.
        """
        with self._lock:
            for left in reversed(range(_TRIES)):
                try:
                    return self._ask(layout, frame)
                except (EOFError, OSError):
                    cause = self._cause_of_death()
                if not left or cause == self._overdue:
                    break
        raise StudyError(StudyReason.DECODER_DIED, cause, rejected=False)

    def forget(self) -> None:
        """In a forked process: leave the decoder to the parent."""
        self._child, self._lock = None, threading.Lock()

    def stop(self) -> None:
        """End the process, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            end_child(*child)

    @property
    def pid(self) -> int | None:
        """Id of the process; None where there is none."""
        return None if self._child is None else self._child[0].pid

    @property
    def _overdue(self) -> str:
        return f"no answer within {self._limits.seconds:g} s"

    def _ask(self, layout: EncodedFrame, frame: bytes) -> NDArray[Any]:
        """Send a frame and wait for its pixels; raises EOFError or OSError if the process ended."""
        connection = self._running()
        connection.send((layout, frame))
        if not connection.poll(self._limits.seconds + self._patience_s):
            raise TimeoutError
        self._patience_s = _GRACE_SECONDS
        answer = json.loads(connection.recv_bytes(_LARGEST_ANSWER))
        pixels = connection.recv_bytes(layout.rows * layout.columns * 4)
        if "error" in answer:
            if answer["error"] == MemoryError.__name__:
                detail = f"more than {self._limits.memory_bytes // 2**20} MiB for one frame"
                raise StudyError(StudyReason.DECODER_DIED, detail, rejected=False)
            raise StudyError(StudyReason.DECODE_FAILED, str(answer["error"]))
        kind, shape = answer["dtype"], tuple(answer["shape"])
        if kind not in _PIXEL_TYPES or math.prod(shape) * np.dtype(kind).itemsize != len(pixels):
            raise StudyError(StudyReason.DECODE_FAILED, "unusable pixels")
        return np.frombuffer(pixels, kind).reshape(shape)

    def _running(self) -> Connection:
        if self._child is None:
            self._child = start_child(self._module)
            self._patience_s = _START_SECONDS
            self._child[1].send(self._limits)
        return self._child[1]

    def _cause_of_death(self) -> str:
        """End what is left of the process, and say in words why it gave no answer."""
        assert self._child is not None
        process, _ = self._child
        try:
            code = process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            code = -signal.SIGALRM
        self.stop()
        if code == -signal.SIGALRM:
            return self._overdue
        ended = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"the decoder process ended ({ended})"


_SHARED = FrameDecoder()
atexit.register(_SHARED.stop)
os.register_at_fork(after_in_child=_SHARED.forget)


def decode_frame(layout: EncodedFrame, frame: bytes) -> NDArray[Any]:
    """Decode a frame with the decoder process of this process; see `FrameDecoder.decode`."""
    return _SHARED.decode(layout, frame)
