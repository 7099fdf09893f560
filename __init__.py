"""AG-Net: fine-grained image recognition guided by salient regions (Bera et al., IEEE TIP 30, 2021).

Two programs that meet in one HDF5 file: ``agnet propose`` writes the regions of every image of a data
set, ``agnet train`` trains the network that attends to them.
"""

__version__ = "0.1.0"
