"""A segmenter of two thresholds, as a command."""

import shlex
import sys

THRESHOLDS = """
import sys
import nibabel, numpy
scan = nibabel.load(sys.argv[1])
values = scan.get_fdata()
labels = (values > 0.3 * values.max()).astype(numpy.uint8) + (values > 0.6 * values.max())
nibabel.save(nibabel.Nifti1Image(labels, scan.affine), sys.argv[2])
"""
SEGMENTER = shlex.join([sys.executable, "-c", THRESHOLDS, "{input}", "{output}"])
