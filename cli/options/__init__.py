"""Every option by its name, from one place: the commands say options.Seed whichever group it is of."""

from tokenglass.cli.options.answers import *
from tokenglass.cli.options.common import *
from tokenglass.cli.options.control import *
from tokenglass.cli.options.mode import *
from tokenglass.cli.options.model import *
from tokenglass.cli.options.prompt import *
from tokenglass.cli.options.sampling import *
from tokenglass.cli.options.search import *
from tokenglass.cli.options.view import *
