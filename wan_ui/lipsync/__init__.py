"""Lip-sync: MuseTalk 1.5 as one pass over finished frames, on official weights and without mmcv.

    sound.py      any audio file -> 16 kHz samples; when there is speech; which audio belongs to a frame (no torch)
    faces.py      frames -> faces with 68 landmarks (no torch)
    usable.py     which faces can speak: size, sharpness, angle, presence in a clip; measured (no torch)
    numbered.py   which of several faces is meant (no torch)
    tracks.py     faces -> one tracked, clamped, smoothed box per frame (no torch)
    parsing.py    a face -> the region that may change: BiSeNet on full weights, from landmarks otherwise
    blend.py      a new face back into its frame
    sharpness.py  how sharp the new mouth is, and as sharp as the face around it
    files.py      the layout of the weights (no torch)
    whisper.py    samples -> their spectrogram -> what Whisper's encoder makes of it
    musetalk.py   the networks: Whisper's encoder, the VAE, the UNet
    features.py   samples -> the window of audio features of each video frame, one segment at a time
    cache.py      latents, boxes and masks of clips seen before
    speech.py     the pass itself

`compat=True`, wherever it appears, means number for number what upstream does, its bugs included. It exists for
the parity tests; the default has the fixes, each named where it is made.

Source: github.com/TMElyralab/MuseTalk (MIT), read at 0a89dec; nothing of it is copied.
"""
