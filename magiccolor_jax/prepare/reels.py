"""Clips as frames in their order: files of video, and folders of pictures.

Every frame has a key, by which it is read again: a time stamp, or its number in the folder.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from magiccolor_jax.data.pictures import CaseError, read_picture
from magiccolor_jax.data.transforms import Picture
from magiccolor_jax.prepare.marks import passing
from magiccolor_jax.prepare.shots import SMALL, Small, thumbnail
from magiccolor_jax.prepare.stills import Bad

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".m2ts", ".ogv", ".wmv")
)
"""Endings (any case) of the files that are taken for video."""

HIGH_DEFINITION = 720
"""Rows from which on video that does not say how its colours are coded has those of BT.709."""


REORDERED = 16
"""Most frames that are shown before one from which they are predicted (H.264 and H.265)."""

SHORT_SECONDS, SHORT_SHARE = 2.0, 0.05
"""A film whose frames end so much before its length is cut short; sound may be a little longer."""


class Frame(NamedTuple):
    """A frame at full size."""

    name: str
    """Below its clip's."""
    path: Path
    picture: Picture
    note: str
    """Where in the clip it is."""


class Reel(Protocol):
    """A clip."""

    bad: list[Bad]
    """Frames that could not be read, after `glances`."""

    def glances(self) -> Iterator[tuple[int, Small]]:
        """Key and thumbnail of every frame.

        Raises:
            CaseError: the clip cannot be read.
        """
        ...

    def read(self, keys: Sequence[int]) -> list[Frame]:
        """Frames by their keys, which ascend.

        Raises:
            CaseError: they cannot be read.
        """
        ...


class FolderReel:
    """The pictures of a folder, in natural order, as the frames of a clip."""

    def __init__(self, files: Sequence[Path]):
        self._files, self.bad = list(files), []

    def glances(self) -> Iterator[tuple[int, Small]]:
        """Number and thumbnail of every picture that can be read; the others are `bad`.

        Raises:
            CaseError: the system cannot read one now.
        """
        self.bad = []
        for number, path in enumerate(self._files):
            try:
                picture, _ = read_picture(path)
            except CaseError as error:
                if passing(error):
                    raise
                self.bad.append(Bad(path.stem, str(error)))
            else:
                yield number, thumbnail(picture)

    def read(self, keys: Sequence[int]) -> list[Frame]:
        """Pictures by their numbers; raises CaseError where one cannot be read."""
        files = [self._files[key] for key in keys]
        return [Frame(file.stem, file, read_picture(file)[0], "") for file in files]


class VideoReel:
    """The frames of a file of video (PyAV, the extra `video`)."""

    def __init__(self, path: Path):
        self._path, self.bad = path, []

    def glances(self) -> Iterator[tuple[int, Small]]:
        """Time stamp and thumbnail of every frame that is whole.

        Those that are damaged, or predicted from such, are left out, and `bad` tells of them; also
        where the film ends before its time.

        Raises:
            CaseError: nothing of the file can be decoded, or it has no time stamps.
        """
        self.bad = []
        height, width = SMALL
        held: list[tuple[int, Small]] = []
        damaged, lost, last, at = False, 0, 0.0, None
        with _opened(self._path) as (container, stream):
            for frame in _frames(container, stream):
                if frame is None or frame.is_corrupt:
                    # What is shown before it may be predicted from it.
                    lost, held, damaged = lost + len(held) + (frame is not None), [], True
                    at = last if at is None else at
                    continue
                key = self._stamp(frame)
                last = float(key * stream.time_base)
                if frame.key_frame:
                    yield from held
                    held, damaged = [], False
                if damaged:
                    lost += 1
                    continue
                small = frame.to_ndarray(
                    width=width, height=height, format="rgb24", interpolation="AREA"
                )
                held.append((key, small))
                if len(held) > REORDERED:
                    yield held.pop(0)
            yield from held
            self._tell(at, lost, last, container)

    def _tell(self, at: float | None, lost: int, last: float, container: Any) -> None:
        """Notes damage, and an end before its time, in `bad`.

        Args:
            at: seconds at which damage begins.
            lost: frames that are left out for it.
            last: seconds of the last frame.
        """
        fix = "write the file anew from a whole one; its other frames are taken"

        def note(name: str, rule: str, expected: str, got: str) -> None:
            self.bad.append(Bad(name, str(CaseError(self._path, rule, expected, got, fix))))

        if at is not None:
            got = f"damage from {at:.3f} s on, and {lost} frames left out for it"
            note("damaged", "frames of video are whole", "no damage", got)
        length, start = ((each or 0) / 1e6 for each in (container.duration, container.start_time))
        if length + start - last > max(SHORT_SECONDS, SHORT_SHARE * length):
            told = f"{length:.3f} s, as the file says"
            note(
                "cut-short", "a film is as long as it says", told, f"frames to {last - start:.3f} s"
            )

    def read(self, keys: Sequence[int]) -> list[Frame]:
        """Frames by their time stamps.

        Raises:
            CaseError: the file is damaged, or has changed.
        """
        # Some containers cannot seek, or do to a place behind the one that is asked for.
        try:
            frames = self._between(keys, seek=True)
        except CaseError:
            frames = []
        if len(frames) < len(keys):
            frames = self._between(keys, seek=False)
        if len(frames) < len(keys):
            raise CaseError(
                self._path,
                "a file of video stays as it is while it is read",
                expected=f"{len(keys)} frames from {keys[0]} to {keys[-1]}",
                got=str(len(frames)),
                fix="run the command again with another --out",
            )
        return frames

    def _between(self, keys: Sequence[int], seek: bool) -> list[Frame]:
        """The frames that are met between the first and the last key."""
        wanted, found = set(keys), {}
        with _opened(self._path) as (container, stream):
            if seek:
                container.seek(keys[0], stream=stream)
            for frame in _frames(container, stream):
                if frame is None or frame.is_corrupt:
                    continue
                key = self._stamp(frame)
                if key in wanted:
                    found[key] = self._frame(frame, key, stream)
                if key >= keys[-1]:
                    break
        return [found[key] for key in keys if key in found]

    def _stamp(self, frame: Any) -> int:
        """Time stamp; raises CaseError where there is none."""
        if frame.pts is None:
            raise CaseError(
                self._path,
                "frames are found again by their time stamps",
                expected="a stamp for each frame",
                got="a frame without one",
                fix="write the file anew: ffmpeg -fflags +genpts -i FILE -c copy NEW.mkv",
            )
        return frame.pts

    def _frame(self, frame: Any, key: int, stream: Any) -> Frame:
        """A frame with square pixels, upright."""
        unsaid = frame.colorspace not in (1, 4, 5, 6, 7, 9, 10)
        high = unsaid and frame.height >= HIGH_DEFINITION
        picture = frame.to_ndarray(format="rgb24", src_colorspace="ITU709" if high else None)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        if aspect != 1:
            size = max(round(frame.width * aspect), 1), frame.height
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        if matrix := frame.side_data.get("DISPLAYMATRIX"):
            picture = _upright(picture, np.frombuffer(matrix, np.int32).reshape(3, 3))
        seconds = float(key * stream.time_base)
        name = f"{round(1000 * seconds):08}"
        return Frame(name, self._path, np.ascontiguousarray(picture), f"frame at {seconds:.3f} s")


def _upright(picture: Picture, matrix: Int32[np.ndarray, "3 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture turned and mirrored as a file of video says.

    Args:
        matrix: times (column, row) from the left gives the place where a pixel is shown (FFmpeg's
            libavutil/display.h); quarter turns are all that is looked for.
    """
    (a, b, _), (c, d, _), _ = matrix.tolist()
    lies = abs(b) > abs(a)
    if lies:
        picture = picture.transpose(1, 0, 2)
    left, up = (c < 0, b < 0) if lies else (a < 0, d < 0)
    return picture[:: -1 if up else 1, :: -1 if left else 1]


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Frames in the order in which they are shown; None where some cannot be decoded.

    Raises:
        FFmpegError: nothing can be decoded.
    """
    from av.error import FFmpegError

    packets, whole, failed = container.demux(stream), False, None
    while True:
        found: list[Any] = []
        try:
            packet = next(packets, None)
        except FFmpegError as error:  # the rest cannot be reached
            packet, failed, found = None, error, [None]
        try:
            found = packet.decode() if packet else found
        except FFmpegError as error:
            failed, found = error, [None]
        whole = whole or any(frame is not None for frame in found)
        yield from found
        if packet is None:
            break
    if failed and not whole:
        raise failed


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A file of video and its first stream of pictures.

    Raises:
        ValueError: PyAV is missing.
        CaseError: it cannot be read as far as it was asked for.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise ValueError(
            f"{path}: video is read by PyAV: expected the package av, got none; "
            "pip install 'magiccolor_jax[video]'"
        ) from None

    def fail(got: str) -> CaseError:
        rule, expected = "a file of video can be read", "a whole file with frames"
        return CaseError(path, rule, expected, got, "write the file anew, or leave it out")

    try:
        # A whole path, for FFmpeg takes what stands before a colon for a protocol. Titles may be in
        # any encoding, and nobody reads them.
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            if not container.streams.video:
                raise fail("no stream of pictures")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except FFmpegError as error:
        raise fail(f"{type(error).__name__}: {error.strerror}") from error
