"""A frame that kills its decoder, hangs it or makes it grow is a fault of its study only."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import generate_frames

from cac_core.dicom.decoder import FrameDecoder
from cac_core.dicom.decoder_worker import EncodedFrame
from cac_core.dicom.limits import DecodeLimits
from cac_core.errors import StudyError
from tests.builders.ct_series import write_ct_series

#: A decoder process that does what the frame says, and else reads the frame as 2 x 2 pixels.
_OBEDIENT = """
import ctypes, os, pathlib, signal, sys, time
from multiprocessing.connection import Connection
import numpy as np
from cac_core.dicom import decoder_worker

class PanicError(BaseException):
    pass

def decode(layout, frame):
    if frame == b"abort":
        os.abort()
    if frame == b"hang":  # as a native decoder: Python gets no turn
        ctypes.PyDLL(None).pause() or time.sleep(600)
    if frame == b"stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if frame == b"grow":
        bytearray(2**31)
    if frame == b"panic":
        raise PanicError
    if frame.startswith(b"once") and not pathlib.Path(frame[4:].decode()).exists():
        pathlib.Path(frame[4:].decode()).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return np.frombuffer(frame[:8].ljust(8), np.uint16).reshape(2, 2)

decoder_worker.decode = decode
decoder_worker.serve(Connection(int(sys.argv[1])))
"""
_TINY = EncodedFrame(str(uid.JPEGLosslessSV1), 2, 2, 16, 16, False)
LIMITS = DecodeLimits(seconds=2.0, memory_bytes=2**30)


@pytest.fixture
def obedient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrameDecoder]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "obedient_decoder.py").write_text(_OBEDIENT)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    decoder = FrameDecoder(LIMITS, "obedient_decoder")
    yield decoder
    decoder.stop()


def fault_of(decode: Callable[[], object]) -> str:
    with pytest.raises(StudyError) as caught:
        decode()
    assert caught.value.rejected == (caught.value.reason == "decode_failed")
    return f"{caught.value.reason}: {caught.value.detail}"


def test_each_fault_is_named_and_the_next_frame_is_decoded(obedient: FrameDecoder) -> None:
    faults = {
        frame: fault_of(lambda frame=frame: obedient.decode(_TINY, frame))
        for frame in (b"abort", b"hang", b"grow", b"panic")
    }
    assert faults == {
        b"abort": "decoder_died: the decoder process ended (SIGABRT)",
        b"hang": "decoder_died: no answer within 2 s",
        b"grow": "decoder_died: more than 1024 MiB for one frame",
        b"panic": "decode_failed: PanicError",
    }
    assert obedient.decode(_TINY, b"\1\0\2\0\3\0\4\0").tolist() == [[1, 2], [3, 4]]


def test_a_stopped_decoder_is_killed(
    obedient: FrameDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cac_core.dicom.decoder._START_SECONDS", 20.0)
    monkeypatch.setattr("cac_core.dicom.decoder._GRACE_SECONDS", 1.0)
    obedient.decode(_TINY, b"\0" * 8)
    pid = obedient.pid
    assert pid is not None
    began = time.monotonic()
    assert fault_of(lambda: obedient.decode(_TINY, b"stop")).endswith("no answer within 2 s")
    assert time.monotonic() - began < 15
    assert not psutil.pid_exists(pid)


def test_a_decoder_that_something_else_ended_costs_no_study(
    obedient: FrameDecoder, tmp_path: Path
) -> None:
    frame = b"once" + os.fsencode(tmp_path / "once")
    assert obedient.decode(_TINY, frame).shape == (2, 2)
    assert (tmp_path / "once").exists()


def test_one_process_serves_all_frames_and_knows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAC_LINKAGE_KEY", "the secret")
    (path,) = write_ct_series(tmp_path, n_slices=1, syntax=uid.RLELossless)
    dataset = dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    layout = EncodedFrame(str(uid.RLELossless), dataset.Rows, dataset.Columns, 16, 16, False)
    decoder = FrameDecoder()
    try:
        expected = dataset.pixel_array
        np.testing.assert_array_equal(decoder.decode(layout, frame), expected)
        process = psutil.Process(decoder.pid)
        assert "CAC_LINKAGE_KEY" not in process.environ()
        assert decoder.decode(layout, frame) is not None
        assert decoder.pid == process.pid
    finally:
        decoder.stop()
    assert not process.is_running()


def test_real_frames_that_end_gdcm(shared_data: Path) -> None:
    """Mutated JPEG frames on which gdcm 3.2 ends its process; others are decoded before and after.

    The bytes are those of `random.Random(9)`, so that another release of gdcm may survive them.
    """
    dataset = dcmread(shared_data / "transfer_syntaxes" / "CT1_JPLL")
    sound = next(generate_frames(dataset.PixelData, number_of_frames=1))
    layout = EncodedFrame(str(uid.JPEGLosslessSV1), dataset.Rows, dataset.Columns, 16, 16, True)
    decoder = FrameDecoder()
    try:
        before = decoder.decode(layout, sound)
        outcomes = set()
        for seed in (9, 621):
            try:
                decoder.decode(layout, mutated(sound, seed))
            except StudyError as error:
                outcomes.add(str(error.reason))
        assert outcomes <= {"decoder_died", "decode_failed"}
        np.testing.assert_array_equal(decoder.decode(layout, sound), before)
    finally:
        decoder.stop()


def mutated(frame: bytes, seed: int) -> bytes:
    """A frame with up to eight bytes changed, most of them in its header."""
    chance = random.Random(seed)
    changed = bytearray(frame)
    for _ in range(chance.randint(1, 8)):
        near = chance.random() < 0.7
        at = chance.randrange(600) if near else chance.randrange(len(changed))
        changed[at] = chance.randrange(256)
    return bytes(changed)


def test_a_decoder_ends_with_its_process(tmp_path: Path) -> None:
    """Also where the process is killed while its decoder is idle."""
    (path,) = write_ct_series(tmp_path, n_slices=1, syntax=uid.RLELossless)
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        dataset = dcmread(path)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        layout = EncodedFrame(str(uid.RLELossless), dataset.Rows, dataset.Columns, 16, 16, False)
        decoder = FrameDecoder()
        decoder.decode(layout, frame)
        os.write(writes, str(decoder.pid).encode())
        time.sleep(600)
    decoder_pid = int(os.read(reads, 20))
    assert psutil.pid_exists(decoder_pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(decoder_pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.close(reads)
    os.close(writes)
    assert not psutil.pid_exists(decoder_pid)
