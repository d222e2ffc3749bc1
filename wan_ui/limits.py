"""Every bound that a person may run into, in one place: what may be sent, made, kept and waited for.

Those that a host may change are the defaults of the settings of the same name (wan_ui/settings.py). docs/limits.md is
the table of all, with what happens above each; a test keeps it equal to this file, and each has a test at the bound and
one above it. What a parser takes of one file's header stands beside that parser.
"""

# ---- what is sent
MAX_UPLOAD_MB = 32  # of one file
MAX_UPLOADS_GB = 4.0  # all files that wait in the folder of uploads
UPLOADS = 2_000  # the same, their number
UPLOAD_LIFE = 600.0  # seconds for which an upload is not deleted to make room for others
UPLOAD_DAYS = 1.0  # after which it is deleted
UPLOAD_SECONDS = 1800.0  # in which one must have arrived
IDLE_SECONDS = 30.0  # without a byte, after which a body is given up
JSON_BYTES = 2_000_000  # of one request; the longest prompt that is answered with its length has half of that
JSON_VALUES = 5_000
JSON_DEPTH = 32
JSON_DIGITS = 40  # of one number; Python itself gives up at 4,300
JSON_SECONDS = 60.0  # in which it must have arrived
LOGIN_BYTES = 16_000  # of the login form
HEADER_SECONDS = 15.0  # from the first moment of a connection to the end of a request's headers
KEEP_ALIVE = 20  # seconds that an idle connection stays

LORA_GB = 4.0  # of one LoRA that the page fetches or is sent
LORAS_GB = 200.0  # of the LoRA folder, up to which the page adds to it

# ---- what is in it
IMAGE_MEGAPIXELS = 64  # decoded RGBA of that size is 256 MB
IMAGE_BYTES = 500_000_000
IMAGES_AT_ONCE = 4  # decoded in one process
FRAME_MEGAPIXELS = 64  # of a video
VIDEO_BYTES = 2_000_000_000  # of the frames of a video that is read whole, uncompressed
MAX_CLIP_SECONDS = 120.0  # of a clip that is continued, or of a performance
MAX_AUDIO_SECONDS = 600.0  # of a voice
MAX_PROMPT = 2000  # characters

# ---- what is made of it
MAX_SEGMENTS = 12  # of one clip
MAX_JOB_MEGAPIXELS = 4_000.0  # frames x width x height of one job: 12 GB of frames
LORAS_PER_JOB = 8  # of one job
MAX_QUEUE = 20  # jobs that wait
MAX_QUEUE_PER_VISITOR = 5  # of them, of one visitor on a shared address
ADDRESS_SHARE = 0.5  # of the queue, for all visitors of one address together
STAGE_TIMEOUT = 900  # seconds of a stage without progress
COMPARISONS = 8  # that wait
COMPARISONS_PER_VISITOR = 2
COMPARISON_SECONDS = 900.0
COMPARISON_CLIPS = 6  # in one
CARRIED_BYTES = 4_000_000  # of a picture in the file of a clip

# ---- what is kept
MAX_OUTPUTS_GB = 20.0  # of one person
MAX_VISITORS_GB = 100.0  # of all visitors of a shared address together
MAX_OUTPUT_DAYS = 0.0  # 0: for ever
FAILED_ENTRIES = 200  # of one person's history that have no clip
VISITORS_FAILED_ENTRIES = 2_000  # of all visitors of a shared address together
MIN_FREE_MB = 200  # on the disk, for a job or an upload to be taken
MAX_CACHE_GB = 20.0
FACE_FILES, FACE_BYTES = 32, 2**30  # prepared faces of clips that were given a voice

# ---- who asks, and how often
MAX_CONNECTIONS = 200  # open at once from one address
MAX_REQUESTS_PER_MINUTE = 1200  # of one address, on a shared one; a page that watches its job sends 120
LOGIN_TRIES = 10  # wrong ones from one address ...
LOGIN_SECONDS = 300.0  # ... in this time
ADDRESSES = 50_000  # that are remembered for these two
SESSIONS = 400  # open pages that are remembered
MAX_PAGE_GB = 4.0  # memory of the page's process
