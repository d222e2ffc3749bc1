"""A stranger's video becomes frames as a player shows them; colours are held against known patches."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.media import cpu_limit, decoder, muxer, video
from wan_ui.media.hdr import to_light

COLOURS = np.array(
    [
        *([250, 250, 250], [192, 192, 192], [128, 128, 128], [64, 64, 64]),
        *([200, 60, 40], [40, 160, 60], [50, 80, 200], [210, 180, 140]),
    ]
)
PATCHES = np.kron(COLOURS.reshape(2, 4, 3), np.ones((48, 40, 1))).astype(np.uint8)  # 160 x 96
CENTRES = ([24] * 4 + [72] * 4, [20, 60, 100, 140] * 2)
TAGGED = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,setparams=colorspace=bt709:range=tv"
X264 = ("-c:v", "libx264", "-crf", "8", "-preset", "ultrafast")


def make(path, *options, pixels=PATCHES, count=6, rate=25, before=()):
    """A video of the same picture `count` times; uint16 pixels are coded as they are, in 10 bits."""
    deep = pixels.dtype == np.uint16
    height, width = pixels.shape[:2]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *before, "-f", "rawvideo", "-r", str(rate)]
    command += [
        "-pix_fmt",
        "rgb48le" if deep else "rgb24" if pixels.shape[2] == 3 else "rgba",
        "-s",
        f"{width}x{height}",
    ]
    subprocess.run([*command, "-i", "pipe:", *options, path], input=pixels.tobytes() * count, check=True)
    return path


def convert(source, path, *options, before=()):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *before, "-i", source, *options, path]
    subprocess.run(command, check=True)
    return path


def patches(path, size=(160, 96)) -> np.ndarray:
    frames, _ = muxer.read_frames(path)
    assert frames.shape[1:] == (size[1], size[0], 3)
    rows, columns = (np.array(side) * size[i] // (160, 96)[i] for side, i in zip(CENTRES, (1, 0), strict=True))
    return frames[0][rows, columns].astype(int)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", ("-vf", TAGGED, *X264)),
        ("full.mp4", ("-vf", TAGGED.replace("tv", "pc"), *X264)),
        ("ten.mp4", ("-vf", TAGGED.replace("yuv420p", "yuv420p10le"), *X264)),
        ("sd.mp4", ("-vf", "format=yuv420p", *X264)),  # without tags: BT.601
        ("a.webm", ("-vf", TAGGED, "-c:v", "libvpx-vp9", "-crf", "10", "-deadline", "realtime")),
        ("a.mpg", ("-c:v", "mpeg2video", "-q:v", "2")),
        ("a.avi", ("-c:v", "mjpeg", "-q:v", "2")),
        ("rgb.mov", ("-c:v", "png")),
    ],
)
def test_colours_are_those_of_the_file(tmp_path, name, options):
    assert np.abs(patches(make(tmp_path / name, *options)) - COLOURS).max() <= 3


def test_hd_without_tags_is_bt709(tmp_path):
    size = "scale=1280:768:flags=neighbor:out_color_matrix=bt709:out_range=tv,format=yuv420p"
    path = make(tmp_path / "hd.mp4", "-vf", f"{size},setparams=colorspace=unknown:range=tv", *X264, count=2)
    assert np.abs(patches(path, (1280, 768)) - COLOURS).max() <= 3


# ---------------------------------------------------------------- HDR

BT709 = np.array([[0.41239, 0.35758, 0.18048], [0.21264, 0.71517, 0.07219], [0.01933, 0.11919, 0.95053]])
BT2020 = np.array([[0.63696, 0.14462, 0.16888], [0.26270, 0.67800, 0.05930], [0, 0.02807, 1.06099]])


def pq(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(nits: np.ndarray) -> np.ndarray:
    display = nits / 1000
    seen = (display @ np.array([0.2627, 0.6780, 0.0593]))[..., None]
    scene = display * seen ** ((1 - 1.2) / 1.2)
    bent = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bent)


CURVES = {"smpte2084": pq, "arib-std-b67": hlg}


def make_hdr(path, codes, curve):
    """A 10-bit BT.2020 video of `codes` (H, W, 3), 0 to 1, tagged with the transfer curve."""
    tags = f"color_primaries=bt2020:color_trc={curve}:colorspace=bt2020nc:range=tv"
    filters = f"scale=out_color_matrix=bt2020nc:out_range=tv,format=yuv420p10le,setparams={tags}"
    coded = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "8", "-x265-params", "log-level=error")
    return make(path, "-vf", filters, *coded, pixels=(65535 * codes).round().astype(np.uint16), count=2)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("white", [100, 203])
def test_hdr_is_as_bright_as_its_ordinary_self(tmp_path, curve, white):
    values = PATCHES / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    codes = CURVES[curve](light @ (np.linalg.inv(BT2020) @ BT709).T * white)
    assert np.abs(to_light(codes, "bt2020", curve) - light * white).max() < 0.1
    path = make_hdr(tmp_path / "hdr.mp4", codes, curve)
    flat = convert(
        path, tmp_path / "flat.mkv", "-vf", "setparams=color_trc=bt709:color_primaries=bt709", "-c:v", "ffv1"
    )
    got, unread = patches(path), patches(flat)
    assert unread[1:4].mean() < 0.8 * COLOURS[1:4].mean() or curve != "smpte2084" or white != 100
    assert np.abs(got[1:] - COLOURS[1:]).max() <= 8, "everything below white keeps its value"
    assert np.abs(got[0] - COLOURS[0]).max() <= 12


def test_what_is_brighter_than_white_is_pressed_not_cut(tmp_path):
    steps = np.array([50, 203, 400, 700, 1000])
    codes = pq(np.repeat(steps, 32)[None, :, None] * np.ones((64, 1, 3)))
    path = make_hdr(tmp_path / "sky.mp4", codes, "smpte2084")
    levels = muxer.read_frames(path)[0][0][32, 16::32, 1].astype(int)
    assert abs(levels[0] - 137) <= 2 and (np.diff(levels) >= 1).all() and 236 <= levels[1] <= 244 and levels[4] >= 253


# ---------------------------------------------------------------- geometry and time


@pytest.fixture
def base(tmp_path):
    return make(tmp_path / "base.mp4", "-vf", TAGGED, *X264)


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_a_turned_video_is_upright(tmp_path, base, angle, turns):
    turned = convert(base, tmp_path / "turned.mp4", "-c", "copy", before=("-display_rotation", str(angle)))
    frames, _ = muxer.read_frames(turned)
    assert np.abs(frames[0].astype(int) - np.rot90(PATCHES, turns)).mean() < 3


def test_pixels_are_made_square(tmp_path):
    for squeeze, sar in (("80:96", "2"), ("160:48", "1/2")):
        filters = f"scale={squeeze}:flags=neighbor:out_color_matrix=bt709,format=yuv420p,setsar={sar}"
        filters += ",setparams=colorspace=bt709"
        path = make(tmp_path / "wide.mp4", "-vf", filters, *X264)
        size = (160, 96) if sar == "2" else (80, 48)
        assert muxer.probe(path)[:2] == size and np.abs(patches(path, size) - COLOURS).max() <= 3


def test_fields_are_joined_without_a_comb(tmp_path):
    bar = "color=black:s=160x96:r=50:d=0.4,format=yuv420p[a];color=white:s=40x96:r=50:d=0.4[b];[a][b]overlay=x=n*6"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", bar]
    command += [
        "-vf",
        "tinterlace=interleave_top,setfield=tff",
        "-flags",
        "+ilme+ildct",
        *X264,
        "-x264-params",
        "tff=1",
    ]
    subprocess.run([*command, tmp_path / "fields.mp4"], check=True)
    frames, fps = muxer.read_frames(tmp_path / "fields.mp4")
    assert fps == 25 and len(frames) == 10
    frame = frames[5].astype(int)[..., 1]
    assert np.abs(2 * frame[1:-1] - frame[:-2] - frame[2:]).max() < 40 and frame.max() > 200


def test_a_late_start_shows_nothing_before_the_first_frame(tmp_path, base):
    for name in ("late.mp4", "late.mkv"):
        sound = ("-f", "lavfi", "-i", "sine=300:d=1", "-itsoffset", "0.6")
        late = convert(base, tmp_path / name, "-map", "0", "-map", "1", "-c:v", "copy", before=sound)
        assert len(muxer.read_frames(late)[0]) == 6
    assert len(muxer.read_frames(convert(base, tmp_path / "late.ts", "-c", "copy", "-output_ts_offset", "5"))[0]) == 6


def test_a_variable_rate_becomes_constant(tmp_path):
    numbered = "color=black:s=64x64:r=30:d=2,geq=lum='16+3*N':cb=128:cr=128"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", numbered]
    command += ["-vf", "select='not(mod(n,2))+lt(n,30)'", "-fps_mode", "vfr", *X264, tmp_path / "phone.mp4"]
    subprocess.run(command, check=True)
    frames, fps = muxer.read_frames(tmp_path / "phone.mp4")
    assert fps == 30 and 59 <= len(frames) <= 60
    shown = (frames[:, 32, 32, 1].astype(float) * 219 / 255 / 3).round()
    assert np.abs(shown[:59] - np.arange(59)).max() <= 1.5


def test_high_rates_are_thinned_and_film_rates_are_exact(tmp_path):
    fast = make(tmp_path / "fast.mp4", "-vf", TAGGED, *X264, rate=240, count=48)
    frames, fps = muxer.read_frames(fast)
    assert fps == video.MAX_FPS and len(frames) == 12
    film = make(tmp_path / "film.mp4", "-vf", TAGGED, *X264, rate="24000/1001")
    assert muxer.probe(film)[2] == pytest.approx(24000 / 1001, rel=1e-9)


# ---------------------------------------------------------------- animations, transparency, what is refused


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.avif"])
def test_animations_play_at_their_pace(tmp_path, name):
    first = Image.fromarray(PATCHES)
    rest = [first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)] * 4
    options = {"lossless": True} if name == "a.webp" else {"quality": 95} if name == "a.avif" else {}
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=100, **options)
    frames, fps = muxer.read_frames(tmp_path / name)
    assert len(frames) == 5 and fps == pytest.approx(10)
    assert np.abs(frames[0].astype(int) - PATCHES).mean() < 3
    assert np.abs(frames[1].astype(int) - PATCHES[:, ::-1]).mean() < 3


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", ("-pix_fmt", "yuva420p", "-c:v", "libvpx-vp9", "-deadline", "realtime")), ("a.mov", ("-c:v", "png"))],
)
def test_transparent_parts_are_white(tmp_path, name, codec):
    alpha = np.where(np.arange(160) < 80, 0, 255)[None, :, None].repeat(96, 0)
    path = make(tmp_path / name, *codec, pixels=np.concatenate([PATCHES, alpha], 2).astype(np.uint8))
    frame = muxer.read_frames(path)[0][0].astype(int)
    assert (frame[:, :72] >= 253).all() and np.abs(frame[CENTRES][[2, 3, 6, 7]] - COLOURS[[2, 3, 6, 7]]).max() <= 4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", ("-metadata:s:v:0", "language=pt-BR")),
        ("a.mkv", ("-metadata:s:v:0", "language=of no form")),
        ("camera.mov", ("-timecode", "01:00:00:00")),  # ffmpeg lists the pictures and their time code as a group
    ],
)
def test_streams_are_found_however_ffmpeg_lists_them(tmp_path, name, options):
    frames, _ = muxer.read_frames(make(tmp_path / name, "-pix_fmt", "yuv420p", *X264, *options))
    assert len(frames) == 6


def test_what_is_refused_says_why(tmp_path, base):
    still = tmp_path / "still.png"
    Image.fromarray(PATCHES).save(still)
    sound = tmp_path / "cover.m4a"
    tone = ("-f", "lavfi", "-i", "sine=300:d=1")
    convert(still, sound, "-map", "0", "-map", "1", "-c:v", "png", "-disposition:v", "attached_pic", before=tone)
    single = tmp_path / "one.gif"
    Image.fromarray(PATCHES).save(single)
    tiny = make(tmp_path / "tiny.mp4", *X264, pixels=PATCHES[:8, :8].copy())
    for path, words in (
        (still, "it is a PNG picture that does not move"),
        (sound, "there is only sound in it"),
        (single, "it is a single picture"),
        (tiny, "has 8 x 8 pixels; both sides need at least 16"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            muxer.read_frames(path)
        assert path.name in str(caught.value) and caught.value.field == "video"
    whole = base.read_bytes()
    (tmp_path / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as a video"):
        muxer.read_frames(tmp_path / "broken.mp4")


def test_a_frame_that_lasts_for_years_is_looked_at_at_once_and_not_filled_in(tmp_path, base, monkeypatch):
    path = tmp_path / "years.avi"
    convert(base, path, "-c:v", "mpeg4")
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 8 + 20  # how long a frame lasts: this over the number behind it, in seconds
    content[at : at + 8] = (0x7FFFFFFF).to_bytes(4, "little") + (16).to_bytes(4, "little")
    path.write_bytes(content)
    monkeypatch.setattr(decoder, "limited", cpu_limit.Watch)  # the system's limit ends ffmpeg at its fourth signal
    monkeypatch.setattr(video, "CPU_START", 1.0)  # filled in, it would take more than that before the first frame
    source = video.look(path)
    assert (source.width, source.height) == (160, 96)
    with pytest.raises(UserError, match=r"takes far too long to decode|its times are probably damaged"):
        for _ in video.frames(source):
            pass


def test_one_picture_for_ever_is_no_video(tmp_path, monkeypatch):
    still = tmp_path / "still.mp4"
    make(still, "-c:v", "libx264", pixels=np.zeros((32, 32, 3), np.uint8), count=60, rate=20)
    assert len(list(video.frames(video.look(still)))) == 60
    monkeypatch.setattr(video, "STILL", 2)
    with pytest.raises(UserError, match=r"video: still\.mp4 shows one picture for more than"):
        list(video.frames(video.look(still)))
