from cli.options.common import *  # noqa: F403
from cli.options.control import *  # noqa: F403
from cli.options.mode import *  # noqa: F403
from cli.options.model import *  # noqa: F403
from cli.options.prompt import *  # noqa: F403
from cli.options.sampling import *  # noqa: F403
from cli.options.search import *  # noqa: F403
from cli.options.view import *  # noqa: F403
