"""A performance: people in a video, their skeleton drawn, their face cut out, for a picture that moves like them."""
