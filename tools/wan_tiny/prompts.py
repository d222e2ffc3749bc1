"""The English Wan-Tiny understands: a grammar that turns a Spec into ordinary prompts.

Training samples from it; the tokenizer is trained on it; the evaluation uses held-out
combinations. A prompt is a few clauses in any order: a scene, a motion, a light. A scene
alone means the gentle motion. Strength words stand beside the phrase they change.

Scenes deliberately contain words that elsewhere mean a motion or a light ("a woman on the
left", "a bright red car", "a black and white cat"): there they must mean nothing.
"""

import random

from motions import LIGHTS, MOTIONS, Spec

# The word lists would take a line a phrase.
# fmt: off
# {v} takes a strength adverb or nothing; {n} an adjective or nothing.
MOTION_PHRASES = {
    "zoom in": ["zoom {v} in", "zoom in {v}", "the camera {v} zooms in", "the camera zooms in {v}", "zooming in {v}",
                "{v} push in", "the camera {v} pushes in", "push-in {v}", "dolly in {v}", "the camera {v} dollies in",
                "a {n} zoom in", "{n} zoom-in", "a {n} push in", "move {v} closer", "the camera {v} moves closer",
                "the camera {v} moves forward", "moving forward {v}", "{v} get closer", "a {n} close up",
                "the view {v} moves in", "camera {v} approaches", "go {v} closer to the subject", "{n} dolly in"],
    "zoom out": ["zoom {v} out", "zoom out {v}", "the camera {v} zooms out", "the camera zooms out {v}",
                 "zooming out {v}", "{v} pull back", "the camera {v} pulls back", "pull out {v}", "dolly out {v}",
                 "the camera {v} dollies out", "a {n} zoom out", "{n} zoom-out", "a {n} pull back", "move {v} away",
                 "the camera {v} moves away", "the camera {v} moves back", "moving backwards {v}", "{v} back off",
                 "{v} reveal the whole scene", "the view {v} widens", "camera {v} retreats", "{n} dolly out"],
    "pan left": ["pan {v} left", "pan left {v}", "the camera {v} pans left", "the camera pans left {v}",
                 "pan {v} to the left", "the camera {v} pans to the left", "panning left {v}", "{n} pan left",
                 "a {n} pan to the left", "the camera {v} moves left", "move the camera {v} to the left",
                 "the camera slides left {v}", "slide {v} left", "truck left {v}", "look {v} to the left",
                 "the view {v} moves to the left", "turn the camera to the left {v}", "tracking left {v}"],
    "pan up": ["pan {v} up", "pan up {v}", "the camera {v} pans up", "the camera pans up {v}", "tilt {v} up",
               "the camera {v} tilts up", "tilting up {v}", "a {n} tilt up", "{n} pan up", "panning upwards {v}",
               "the camera {v} moves up", "move the camera {v} up", "the camera {v} rises", "crane up {v}",
               "look {v} up", "the view {v} moves upwards", "rise up {v}", "a {n} pan upward"],
    "rotate clockwise": ["rotate {v} clockwise", "rotate clockwise {v}", "the picture {v} rotates clockwise",
                         "the camera {v} rotates to the right", "rotating clockwise {v}", "a {n} clockwise rotation",
                         "turn {v} clockwise", "the image {v} turns clockwise", "spin {v} to the right",
                         "rotate {v} to the right", "roll right {v}", "{v} spin clockwise",
                         "the scene {v} rotates right",
                         "a {n} roll to the right", "rotate right {v}", "tilt clockwise {v}"],
    "waves": ["waves {v} roll over the picture", "{n} waves", "the water {v} ripples", "rippling {v}", "{n} ripples",
              "underwater, {v} wavy", "ripple {v}", "the surface {v} ripples", "{v} rippling water",
              "a {n} wave effect",
              "waves move {v}", "the sea is {v} moving", "wobbling {v} like water", "undulating {v}",
              "{n} ocean waves", "the image {v} ripples like water", "as if seen under water", "the waves roll in {v}"],
    "sway": ["swaying {v} in the wind", "sway {v}", "the wind blows {v}", "a {n} breeze", "{n} wind",
             "swaying {v} in the breeze", "it sways {v}", "the trees {v} sway", "dancing {v}", "a windy day",
             "rocking {v} from side to side", "{v} sways from side to side", "leaning {v} in the wind",
             "the grass {v} bends in the wind", "the flowers {v} move in the wind", "swings {v}"],
    "shake": ["shake {v}", "the camera {v} shakes", "{n} camera shake", "a {n} handheld shot", "handheld camera",
              "shaky {v}", "handheld", "an earthquake", "trembling {v}", "the ground {v} shakes", "it {v} vibrates",
              "a shaky handheld camera", "jittery {v}", "a {n} tremor", "rumbling {v}"],
    "pulse": ["pulse {v}", "pulsing {v}", "a {n} pulse", "a {n} heartbeat", "breathing {v}", "it {v} breathes",
              "the picture {v} pulses", "throbbing {v}", "beating {v} like a heart", "in and out {v} to the beat",
              "bouncing {v}", "a {n} breathing effect"],
    "still": ["a static shot", "static camera", "the camera stays still", "no camera movement", "nothing moves",
              "still", "completely still", "without motion", "no motion", "locked-off shot", "on a tripod", "frozen",
              "the camera does not move", "keep it still", "a fixed camera", "stand still", "do not move"],
    "gentle": ["", "", "", "animate this photo", "make it move", "bring this picture to life", "subtle motion",
               "a cinematic shot", "a gentle movement", "cinematic", "animate it", "make a video of this",
               "living photo"],
}
MIRRORED = {  # the opposite direction, by swapping words
    "pan right": ("pan left", [("left", "right")]),
    "pan down": ("pan up", [("upwards", "downwards"), ("upward", "downward"), ("rises", "sinks"),
                            ("rise up", "sink down"), ("up", "down")]),
    "rotate counterclockwise": ("rotate clockwise", [("clockwise", "counterclockwise"), ("right", "left")]),
}
LIGHT_PHRASES = {
    "sunset": ["{n} sunset", "at sunset", "golden hour", "during the golden hour", "the sun {v} sets", "{n} warm light",
               "dusk", "warm evening light", "the sun goes down {v}", "sunset light", "bathed in {n} golden light",
               "evening falls {v}", "{n} orange glow", "warm colors", "it turns {v} into golden hour",
               "{n} golden light"],
    "night": ["night falls {v}", "night", "at night", "it {v} gets dark", "it becomes night", "{v} getting darker",
              "darkness falls {v}", "{v} fade to dark", "the lights {v} go out", "midnight", "the night comes {v}",
              "{v} darker", "the sky {v} darkens", "day turns into night", "{n} darkness", "nighttime"],
    "moonlight": ["moonlight", "in {n} moonlight", "{n} cold light", "a {n} blue tint", "cold blue light",
                  "wintry light",
                  "{n} cold winter mood", "cold colors", "the light {v} turns blue", "blue hour", "icy {n} light",
                  "it {v} gets cold", "winter light", "a {n} chilly mood"],
    "bright": ["{n} bright light", "the sun {v} rises", "{n} sunrise", "it gets {v} brighter", "{v} brighter",
               "the light {v} turns on", "bright sunlight", "the scene {v} brightens", "{n} sunshine", "sunny",
               "fade to bright {v}", "daybreak", "morning light", "{v} lighter", "brighten {v}"],
    "black and white": ["black and white", "in black and white", "turns {v} black and white", "monochrome",
                        "the colors {v} fade away", "grayscale", "it {v} loses its color", "becoming {v} monochrome",
                        "film noir", "desaturated {v}", "the color {v} drains away", "in grey tones"],
    "vintage": ["vintage look", "a {n} vintage look", "sepia", "{n} sepia tones", "like an old photograph", "old film",
                "turns {v} sepia", "a {n} retro look", "old photo", "nostalgic {n} look", "aged film look"],
    "fog": ["fog", "{n} fog", "the fog {v} rolls in", "mist", "{n} mist", "foggy", "misty", "fog rises {v}", "{n} haze",
            "hazy", "the mist {v} thickens", "smoke {v} fills the scene", "clouds of {n} smoke",
            "fog {v} fills the air"],
}
WEAK, STRONG = 0.55, 1.5
ADVERBS = {WEAK: ["slowly", "gently", "slightly", "subtly", "softly", "very slowly", "a little", "a bit", "lightly"],
           STRONG: ["quickly", "fast", "strongly", "dramatically", "rapidly", "very fast", "a lot", "intensely"]}
ADJECTIVES = {WEAK: ["slow", "gentle", "slight", "subtle", "soft", "light", "faint", "very slow"],
              STRONG: ["fast", "strong", "dramatic", "quick", "intense", "heavy", "rapid", "very strong"]}

NOUNS = tuple((  # noqa: SIM905 - a word list reads best as words
    "cat dog woman man girl boy child portrait landscape mountain lake city street car house tree forest "
    "flower bird horse boat bridge beach sky face person people food coffee table room castle temple robot "
    "astronaut rocket painting photo picture image scene view village garden river desert snow animal fish "
    "baby couple friends sea ocean water rain sun moon star cloud field hill road path train plane ship "
    "bicycle motorcycle building tower window door chair sofa bed desk lamp book cup glass bottle plate cake "
    "bread apple kitten puppy lion tiger elephant bear wolf fox rabbit cow sheep dragon knight king queen "
    "soldier dancer singer chef doctor teacher student farmer fisherman sailor child grandmother grandfather "
    "family crowd market shop restaurant cafe museum library school church palace ruins statue fountain park "
    "playground stadium harbor lighthouse island waterfall cave canyon valley meadow jungle swamp glacier "
    "volcano planet galaxy spaceship station office kitchen bedroom bathroom hall corridor stairs roof "
    "balcony terrace wall fence gate "
).split())
ADJ = tuple((  # noqa: SIM905
    "beautiful cinematic realistic old young happy sad calm colourful colorful detailed amazing big small red "
    "blue green yellow pink purple brown white black epic quiet busy lonely cute funny elegant rusty wooden "
    "stone modern ancient tall tiny huge fluffy shiny wet dusty snowy rainy cloudy tropical rocky grassy "
    "empty crowded smiling sleeping sitting standing walking running orange gray golden silver photorealistic "
    "delicious romantic mysterious peaceful "
).split())
PLACES = ["in the street", "on a sofa", "in the garden", "by the lake", "in the forest", "near the sea", "on the beach",
          "in the mountains", "at the table", "in a room", "under a tree", "in space", "on a hill", "in the city",
          "by the river", "in front of a house", "with a hat", "with flowers", "with a cup of coffee", "in the snow",
          "looking at the camera", "smiling", "holding a camera", "wearing a red dress", "drinking coffee"]
# Words of motion or light that mean neither here.
DECOYS = ["a {x} on the left of the picture", "a {x} on the right", "a {x} on the right side",
          "the {x} on the left side",
          "a {x} up in the mountains", "a {x} at the top", "a {x} at the bottom", "a road going down to the {x}",
          "a {x} with a bright smile", "a bright red {x}", "a black and white cat", "a black and white dog",
          "a black and white cow", "a golden retriever", "a {x} in a winter coat", "an old man with a {x}",
          "a {x} with a dark coat", "a light blue {x}", "a round table with a {x}", "the {x} next to the lamp",
          "a {x} by the sea", "a lake and a {x}", "a glass of water and a {x}", "a {x} in the water", "a dark {x}",
          "a {x} with a warm coat", "the left hand of a {x}", "a {x} upside down", "a close-up of a {x}",
          "a {x} with her back to the camera", "a static caravan and a {x}", "a {x} in the background",
          "a {x} in the foreground", "the camera on the table", "a {x} with long hair", "a fast {x}", "a slow {x}",
          "a strong {x}", "a {x} in an old house", "a {x} with a soft toy"]
QUALITY = ["4k", "high quality", "highly detailed", "masterpiece", "realistic", "film still", "sharp focus", "smooth",
           "35mm", "professional photo", "ultra realistic", "best quality", "shallow depth of field", "8k"]
# fmt: on
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def weighted_motion(rng):
    """Zoom and rotation are hardest for an architecture without absolute positions: twice the weight."""
    weight = {
        "zoom in": 2.0,
        "zoom out": 2.2,
        "rotate clockwise": 2.2,
        "rotate counterclockwise": 2.2,
        "gentle": 1.6,
        "still": 0.6,
        "shake": 0.9,
        "pulse": 1.0,
    }
    names = list(MOTIONS)
    return rng.choices(names, [weight.get(n, 1.2) for n in names])[0]


def sample_spec(rng, simple=False):
    """A random Spec; `simple`: one motion, no light, default strength (the start of training)."""

    def strength():
        return rng.choices([1.0, WEAK, STRONG], [0.6, 0.2, 0.2])[0]

    motion = weighted_motion(rng)
    if simple:
        return Spec(motion)
    light = "none" if rng.random() < 0.55 else rng.choice(list(LIGHTS)[1:])
    if light != "none" and rng.random() < 0.3:
        motion = "gentle"
    ms = 1.0 if motion in ("gentle", "still") else strength()
    return Spec(motion, light, ms, 1.0 if light == "none" else strength())


def phrase(templates, strength, rng):
    """Fill one template so that it carries exactly this strength."""
    while True:
        t = rng.choice(templates)
        if strength != 1.0:
            if "{v}" not in t and "{n}" not in t:
                continue
            t = t.replace("{v}", rng.choice(ADVERBS[strength])).replace("{n}", rng.choice(ADJECTIVES[strength]))
        return " ".join(t.replace("{v}", "").replace("{n}", "").replace("a  ", "a ").split())


def motion_phrase(motion, strength, rng):
    if motion not in MIRRORED:
        return phrase(MOTION_PHRASES[motion], strength, rng)
    twin, swaps = MIRRORED[motion]
    words = phrase(MOTION_PHRASES[twin], strength, rng)
    for a, b in swaps:
        words = words.replace(a, b)
    if motion == "rotate counterclockwise" and rng.random() < 0.2:
        words = words.replace("counterclockwise", rng.choice(["anticlockwise", "counter-clockwise"]))
    return words


def scene(rng, vocabulary):
    """A noun phrase, a decoy, or odd words: none of them means a motion or a light."""
    r = rng.random()
    noun = rng.choice(NOUNS)
    if r < 0.22:
        return rng.choice(DECOYS).format(x=noun)
    if r < 0.34 and vocabulary:
        return " ".join(rng.choice(vocabulary) for _ in range(rng.randint(1, 5)))
    if r < 0.38:
        return "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 9)))
    words = rng.choice(["a ", "the ", "", "my ", "a photo of a ", "a video of a ", "this "])
    words += (rng.choice(ADJ) + " " if rng.random() < 0.5 else "") + noun
    if rng.random() < 0.45:
        words += " " + rng.choice(PLACES)
    if rng.random() < 0.15:
        words += " and a " + rng.choice(NOUNS)
    return words


def write(spec, rng, vocabulary=()):
    """One of the many English prompts that mean `spec`."""
    m = motion_phrase(spec.motion, spec.motion_strength, rng)
    parts = [m] if m else []
    if spec.light != "none":
        parts.append(phrase(LIGHT_PHRASES[spec.light], spec.light_strength, rng))
        if spec.motion == "gentle" and rng.random() < 0.6:
            parts = parts[-1:]
        rng.shuffle(parts)
    if not parts or rng.random() < 0.6:
        parts.insert(0 if rng.random() < 0.7 else len(parts), scene(rng, vocabulary))
    if rng.random() < 0.12:
        parts.append(scene(rng, vocabulary))
    if rng.random() < 0.15:
        parts.append(rng.choice(QUALITY))
    text = parts[0]
    for part in parts[1:]:
        text += rng.choice([", ", ", ", ", ", ". ", " and ", "; ", " while ", ", then ", " "]) + part
    r = rng.random()
    text = text[:1].upper() + text[1:] if r < 0.35 else text.upper() if r < 0.37 else text
    return text + ("." if rng.random() < 0.25 else "")


def sample(rng, vocabulary=(), simple=False):
    """-> (prompt, Spec)"""
    spec = sample_spec(rng, simple)
    return write(spec, rng, vocabulary if not simple else ()), spec


if __name__ == "__main__":
    rng = random.Random(0)
    for _ in range(40):
        text, spec = sample(rng)
        print(f"{spec.motion:24}{spec.motion_strength:<5}{spec.light:16}{spec.light_strength:<5}{text}")
