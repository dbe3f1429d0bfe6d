"""Mean field of a fully connected CRF as layers (CRF-RNN), for any network and any bands.

Every pixel is bound to every other: strongly where both are near (spatial kernel), and strongly
where both are near and of like colour (bilateral kernel). A few rounds of mean field bring each
pixel's classes into line with those of the pixels it is bound to, so that specks vanish and borders
move onto the image's edges. ``dense.py`` has the layer and the table of its filters, ``filters.py``
the simple ones, ``permutohedral.py`` the fast one. Start with :class:`DenseCRF`.

Sources: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (2011) for the model; Zheng et al., "Conditional Random Fields as Recurrent Neural
Networks" (2015) for its layers; Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the
Permutohedral Lattice" (2010) for the filter.
"""

from geoseg.networks.crf.dense import FILTERS, DenseCRF
from geoseg.networks.crf.filters import EXACT_PIXELS, ExactFilter, Filter, WindowFilter
from geoseg.networks.crf.permutohedral import PermutohedralFilter

__all__ = [
    "EXACT_PIXELS",
    "FILTERS",
    "DenseCRF",
    "ExactFilter",
    "Filter",
    "PermutohedralFilter",
    "WindowFilter",
]
