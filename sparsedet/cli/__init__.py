"""One file a command."""

import warnings

# detectron2 compiles small helpers with it at import; nothing that a user could act on. Here and
# not in run(), so that it holds in the processes that a command starts, too.
warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
