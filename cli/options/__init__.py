"""Every option by its name, from one place: the commands say options.Seed whichever group it is of."""

from cli.options.common import *
from cli.options.control import *
from cli.options.mode import *
from cli.options.model import *
from cli.options.prompt import *
from cli.options.sampling import *
from cli.options.search import *
from cli.options.view import *
