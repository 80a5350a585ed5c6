"""Clips -> units: each is looked through once for its shots, and what was found is kept."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.data.records import Provenance
from magiccolor_jax.files import atomic_file
from magiccolor_jax.prepare.marks import Watch, is_systems
from magiccolor_jax.prepare.pictures import FAILURES
from magiccolor_jax.prepare.reels import Frame, Reel
from magiccolor_jax.prepare.shots import ShotConfig, find_shots, inside, joined, parts
from magiccolor_jax.prepare.stills import Bad, Group, Still, Unit


class Clip(NamedTuple):
    """A clip that is not divided into units yet."""

    name: str
    kind: str
    path: Path
    provenance: Provenance
    reel: Reel


class Survey(NamedTuple):
    """What a clip holds."""

    shots: list[list[int]]
    """Keys of the frames that are taken."""
    groups: list[int]
    """For each shot the number of the first one that shows the same."""
    frames: int
    """All that there are."""
    bad: list[Bad]


class Surveyor:
    """Looks through clips; threads may share it."""

    def __init__(self, config: ShotConfig, kept: Path, watch: Watch, tell: Callable[[int], None]):
        """
        Args:
            kept: folder of what earlier runs have found.
            tell: is called with a number of frames, now and then.
        """
        self._config, self._kept, self._watch, self._tell = config, kept, watch, tell

    def __call__(self, clip: Clip) -> Survey:
        """The survey of a clip; one that cannot be read has no shots.

        Raises:
            StoppedError: it has gone, or the error may pass.
        """
        text = f"{clip.kind} {clip.name}".encode(errors="surrogatepass")
        path = self._kept / f"{hashlib.sha256(text).hexdigest()[:24]}.json"
        if path.is_file():
            return _stored(path)
        try:
            found = self._look(clip)
        except FAILURES as error:
            self._watch.check(clip.path, error)
            found = Survey([], [], 0, [Bad(clip.name, str(error))])
            if is_systems(error):
                return found
        if found.bad:
            self._watch.check(clip.path, None)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(found._asdict()) + "\n")
        return found

    def _look(self, clip: Clip) -> Survey:
        """Reads all of a clip.

        Raises:
            CaseError: it cannot be read, or has no frames.
        """
        keys, small = [], []
        for key, each in clip.reel.glances():
            if not keys or key > keys[-1]:
                keys.append(key)
                small.append(each)
            self._tell(1)
        bad = [Bad(f"{clip.name}/{name}", reason) for name, reason in clip.reel.bad]
        if not keys:
            raise CaseError(
                clip.path,
                "a clip has frames",
                expected="at least one that can be read",
                got="none",
                fix="leave it out",
            )
        thumbnails = np.stack(small)
        shots = find_shots(thumbnails, self._config)
        groups = joined(thumbnails, shots, self._config.alike)
        return Survey([[keys[i] for i in shot] for shot in shots], groups, len(keys), bad)


def _stored(path: Path) -> Survey:
    """What an earlier run has found."""
    content: dict[str, Any] = json.loads(path.read_text())
    bad = [Bad(*row) for row in content["bad"]]
    return Survey(content["shots"], content["groups"], content["frames"], bad)


def clip_units(clip: Clip, survey: Survey, *, reach: int, by_shot: bool) -> list[Unit]:
    """A unit for each shot, or part of a long one.

    Args:
        reach: frames between a frame and those in which its instances are looked for.
        by_shot: shots may be in different splits, unless they show the same: films cut back and
            forth, and use drawings again.
    """
    units = []
    for number, (shot, group) in enumerate(zip(survey.shots, survey.groups, strict=True), 1):
        together = f"{clip.name}/{group + 1:04}" if by_shot else clip.name
        for part, keys in enumerate(parts(shot), 1):
            name = f"{clip.name}/{number:04}.{part}"
            read = functools.partial(read_part, clip, keys, reach)
            fields = (clip.kind, clip.path, len(keys), clip.provenance, read)
            units.append(Unit(name, together, *fields))
    return units


def read_part(clip: Clip, keys: Sequence[int], reach: int) -> Group:
    """Frames of one shot, without black borders; each looks at those around it. Black ones among
    them are left out.

    Raises:
        CaseError: they cannot be read, or all are black.
    """
    frames = clip.reel.read(keys)
    alike = len({frame.picture.shape for frame in frames}) == 1
    shown = [inside([frame.picture for frame in frames])] * len(frames) if alike else None
    stills, bad = [], []
    for number, frame in enumerate(frames):
        try:
            stills.append(_still(clip, frame, shown[number] if shown else inside([frame.picture])))
        except CaseError as error:
            if len(bad) == len(frames) - 1:  # so are all the others
                raise
            bad.append(Bad(f"{clip.name}/{frame.name}", str(error)))
    return Group(stills, {i: around(i, len(stills), reach) for i in range(len(stills))}, bad)


def _still(clip: Clip, frame: Frame, shown: Any) -> Still:
    """What a frame shows; raises CaseError where it is black."""
    if shown is None:
        raise CaseError(
            frame.path / frame.name,
            "a frame shows something",
            expected="pixels that are not black",
            got="black",
            fix="nothing is to be done where a clip begins or ends in black",
        )
    picture = np.ascontiguousarray(frame.picture[shown.slices])
    return Still(f"{clip.name}/{frame.name}", frame.path, picture, note=frame.note)


def around(number: int, count: int, reach: int) -> tuple[int, ...]:
    """Numbers of the frames so far before and behind one; in short shots the farthest."""
    near = tuple(each for each in (number - reach, number + reach) if 0 <= each < count)
    if near or count == 1:
        return near
    return (0 if 2 * number >= count else count - 1,)
