"""Cuts, frames that are alike, black borders: on drawn frames, and through a codec."""

from pathlib import Path

import numpy as np
import pytest
from oracles.drawn_clips import NIGHT, RED, SHAPE, frame, shot, write_film, write_video

from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.prepare.reels import FolderReel, VideoReel
from magiccolor_jax.prepare.shots import ShotConfig, find_shots, inside, joined, parts, thumbnail

EVERY = ShotConfig(stride=1, alike=3.0)


def small(frames):
    return np.stack([thumbnail(each) for each in frames])


def test_shots_end_at_cuts_and_drawings_are_taken_once():
    frames = [*shot(8), *shot(6, NIGHT)]
    assert find_shots(small(frames), EVERY) == [[0, 2, 4, 6], [8, 10, 12]]


def test_a_stride_begins_at_each_cut():
    frames = [*shot(10), *shot(7, NIGHT)]
    assert find_shots(small(frames), ShotConfig(stride=4, alike=3.0)) == [[0, 4, 8], [10, 14]]


def test_a_fast_pan_is_no_cut():
    stripes = np.tile(np.repeat(np.array([0, 200], np.uint8), 40), 20)
    pan = [
        np.repeat(stripes[None, x : x + 160, None], 90, 0).repeat(3, 2) for x in range(0, 600, 13)
    ]
    assert np.abs(np.diff(small(pan).astype(float), axis=0)).mean() > EVERY.cut
    assert len(find_shots(small(pan), EVERY)) == 1


def test_what_returns_is_not_taken_again():
    one, two = frame([((40, 40), RED)]), frame([((90, 40), RED)])
    assert find_shots(small([one, two, one, two]), EVERY) == [[0, 1]]


def test_a_small_change_is_one():
    one, two = frame([((40, 40), RED)]), frame([((40, 40), RED)])
    two[70:78, 100:110] = 0
    assert find_shots(small([one, two]), EVERY) == [[0, 1]]
    assert find_shots(small([one, one]), EVERY) == [[0]]


def test_shots_that_share_a_frame_belong_together():
    one, two, three, four = (frame([((30 + 25 * n, 40), RED)]) for n in range(4))
    black, white = np.zeros_like(one), np.full_like(one, 255)
    frames = [one, black, two, white, two, three, black, four, white, three - (three > 9), black]
    shots = [[0, 1], [2, 3], [7, 8], [4, 5, 6], [9], [10]]
    assert joined(small(frames), shots, 3.0) == [0, 1, 2, 1, 1, 5]
    assert joined(small(frames), shots, 0.0) == [0, 1, 2, 1, 4, 5]
    assert joined(small(frames), [[0], [2], [5], [4, 0, 5]], 3.0) == [0, 0, 0, 0]
    assert joined(small(frames), [], 3.0) == [] and joined(small(frames), [[1], [3]], 3.0) == [0, 1]


def test_all_pairs_of_shots_are_compared():
    random = np.random.default_rng(0)
    base = random.integers(0, 200, (40, 18, 32, 3), np.uint8)
    shifts = random.integers(0, 50, (300, 1, 1, 1), np.uint8)
    shown = base[random.integers(0, 40, 300)] + shifts
    shots = [[number] for number in range(300)]
    near = np.abs(shown[:, None].astype(np.int16) - shown[None]).max(axis=(2, 3, 4)) <= 7
    while (further := near @ near).sum() > near.sum():
        near = further
    assert joined(shown, shots, 7.0) == near.argmax(axis=1).tolist()
    assert 40 < len(set(joined(shown, shots, 7.0))) < 300


def test_long_shots_are_cut_into_equal_parts():
    assert parts([7]) == [[7]]
    assert [len(part) for part in parts(range(50))] == [17, 17, 16]
    assert sum(parts(range(50)), []) == list(range(50))


def test_black_borders():
    bars = frame([((40, 40), RED)], border=10)
    assert inside([bars]) == (10, 0, 76, 160)
    pillars = np.zeros((60, 100, 3), np.uint8)
    pillars[4:-2, 20:-30] = 200
    pillars[:2, 5:7] = 255  # a logo
    assert inside([pillars]) == (4, 20, 54, 50)
    assert inside([np.zeros((20, 30, 3), np.uint8)]) is None
    assert inside([frame([], NIGHT)]) == (0, 0, *SHAPE)
    # What one frame shows is no border, though another is dark there.
    assert inside([bars, frame([])]) == (0, 0, *SHAPE)


def test_frames_of_video_are_found_again(tmp_path):
    reel = VideoReel(write_film(tmp_path / "film.mp4"))
    keys, thumbnails = zip(*reel.glances(), strict=False)
    assert len(keys) == 44
    shots = find_shots(np.stack(thumbnails), ShotConfig(stride=1))
    assert [shot[0] for shot in shots] == [0, 24, 40]
    assert shots[:2] == [list(range(0, 24, 2)), list(range(24, 40, 2))]
    wanted = [keys[number] for number in shots[1]]
    found = reel.read(wanted)
    assert [each.name for each in found[:2]] == ["00001000", "00001083"]
    assert found[0].note == "frame at 1.000 s"
    for each, truth in zip(found, shot(16, NIGHT, border=12)[::2], strict=True):
        assert np.abs(each.picture.astype(int) - truth).mean() < 4
    assert inside([each.picture for each in found]) == (12, 0, 72, 160)


def test_pixels_become_square(tmp_path):
    from fractions import Fraction

    import av

    path = tmp_path / "wide.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.height, stream.width, stream.pix_fmt = 96, 160, "yuv420p"
        stream.sample_aspect_ratio = Fraction(4, 3)
        for pixels in shot(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    reel = VideoReel(path)
    keys = [key for key, _ in reel.glances()]
    assert reel.read(keys[:1])[0].picture.shape == (96, 213, 3)


TURNS = {
    "clockwise": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "anticlockwise": ((0, -1, 1, 0), np.rot90),
    "half": ((-1, 0, 0, -1), lambda picture: picture[::-1, ::-1]),
    "mirrored": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_frames_stand_upright(tmp_path, turn):
    """As the file says: phones turn the picture, not its pixels."""
    path, one = write_video(tmp_path / "film.mp4", shot(3)), 1 << 16
    (a, b, c, d), turned = TURNS[turn]
    rows = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, one << 14]
    matrix = np.array(rows, ">i4").tobytes()
    content = path.read_bytes()
    at = content.index(b"tkhd") + 44
    path.write_bytes(content[:at] + matrix + content[at + len(matrix) :])
    reel = VideoReel(path)
    (found,) = reel.read([key for key, _ in reel.glances()][:1])
    truth = turned(shot(1)[0])
    assert found.picture.shape == truth.shape
    assert np.abs(found.picture.astype(int) - truth).mean() < 4


def test_a_title_in_another_encoding(tmp_path):
    import av

    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("mpeg4", rate=24)
        stream.height, stream.width, stream.pix_fmt = *SHAPE, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame([]), format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\x83^\x83C\xff"))
    assert len(list(VideoReel(path).glances())) == 1


def test_a_colon_in_a_name(tmp_path, monkeypatch):
    write_video(tmp_path / "Re:Take 1.mp4", shot(2))
    monkeypatch.chdir(tmp_path)
    assert len(list(VideoReel(Path("Re:Take 1.mp4")).glances())) == 2


def test_bad_video_is_told(tmp_path):
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(CaseError, match=r"bad\.mp4: a file of video can be read: expected a whole"):
        list(VideoReel(path).glances())
    film = write_film(tmp_path / "film.mp4")
    keys = [key for key, _ in VideoReel(film).glances()]
    write_video(film, shot(4))
    with pytest.raises(CaseError, match="stays as it is while it is read: expected 44 frames"):
        VideoReel(film).read(keys)


def test_damage_in_a_film(tmp_path):
    """Frames before and behind it are taken, and none that it has smeared."""
    film = write_video(tmp_path / "film.mp4", shot(48))
    reel = VideoReel(film)
    keys = [key for key, _ in reel.glances()]
    truth = [each.picture.astype(int) for each in reel.read(keys)]
    assert not reel.bad
    content = bytearray(film.read_bytes())
    at = content.index(b"mdat") + len(content) // 3
    content[at : at + 60] = bytes(each ^ 0xA5 for each in content[at : at + 60])
    film.write_bytes(content)
    kept = [key for key, _ in reel.glances()]
    assert keys[0] in kept and keys[-1] in kept and 12 <= len(kept) < len(keys)
    ((name, reason),) = reel.bad
    assert name == "damaged" and f"and {len(keys) - len(kept)} frames left out for it" in reason
    for key, each in zip(kept, reel.read(kept), strict=True):
        np.testing.assert_array_equal(each.picture, truth[keys.index(key)])


def test_a_film_that_is_cut_short(tmp_path):
    film = write_video(tmp_path / "film.mkv", [*shot(24), *shot(24, NIGHT)] * 4)
    reel = VideoReel(film)
    keys = [key for key, _ in reel.glances()]
    assert not reel.bad
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 3])
    kept = [key for key, _ in reel.glances()]
    assert kept == keys[: len(kept)] and len(kept) > 24 and len(reel.read(kept)) == len(kept)
    assert [name for name, _ in reel.bad if name != "damaged"] == ["cut-short"]
    assert "a film is as long as it says: expected 8.000 s" in reel.bad[-1].reason


def test_bad_frames_of_a_folder_are_left_out(tmp_path):
    from oracles.case_folders import save

    for number, pixels in enumerate(shot(3)):
        save(tmp_path / f"{number}.png", pixels)
    (tmp_path / "1.png").write_bytes(b"")
    reel = FolderReel(sorted(tmp_path.glob("*.png")))
    assert [key for key, _ in reel.glances()] == [0, 2]
    assert [name for name, _ in reel.bad] == ["1"]


@pytest.mark.parametrize("fields", [{"stride": 0}, {"cut": 0.0}, {"alike": -1.0}])
def test_settings_are_checked(fields):
    with pytest.raises(ValueError, match="expected a stride of at least 1"):
        ShotConfig(**fields)
