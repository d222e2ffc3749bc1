"""LoRAs on quantised weights on the GPU: put on, changed, taken off bit for bit."""

from tests.lightx2v.test_loras import (  # noqa: F401 - the same, on this device
    predict,
    shapes,
    test_block_offload,
    test_clip_with_loras_equals_the_other_engine,
    test_on_quantised_weights,
)
