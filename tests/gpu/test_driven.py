"""What a voice and what a performance drive, through LightX2V on the GPU: small random models, the same as on a CPU."""

from tests.engines.conftest import picture  # noqa: F401 - fixtures, and the tests on this device
from tests.engines.test_s2v import exact, files, golden, request  # noqa: F401
from tests.lightx2v.test_performance import (  # noqa: F401
    job,
    performer,
    performing,
    test_clips_are_ours,
    test_in_bf16_and_a_job_that_is_stopped,
)
from tests.lightx2v.test_speech import (  # noqa: F401
    speaker,
    speaking,
    test_a_whole_clip_is_ours_and_the_official_one,
    test_in_bf16,
)
