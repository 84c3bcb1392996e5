"""matplotlib without a screen, whatever a notebook has set for the processes that it starts."""

import os

os.environ["MPLBACKEND"] = "agg"  # before matplotlib is imported, which fails where the named backend is not installed

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

__all__ = ["Axes", "Figure", "FigureCanvasAgg", "Rectangle", "colormaps"]
