"""Under which terms the downloaded files may be used, as far as this project knows."""

TERMS = """\
Photos: Caltech-101, Li Fei-Fei, Marco Andreetto, Marc'Aurelio Ranzato and Pietro Perona, 2003. Its record at CaltechDATA
(https://data.caltech.edu/records/mzrjq-6wc02) names CC BY 4.0, as far as this project knows. The photos were collected from the
web; their makers may have rights of their own.

Drawings: the Quick, Draw! Dataset, made available by Google, Inc. (https://github.com/googlecreativelab/quickdraw-dataset),
CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Changed: strokes were drawn as images.

Weights: torchvision's ResNet18 (https://github.com/pytorch/vision, BSD-3-Clause). No licence of their own is named for the
weights. They were trained on ImageNet, whose terms allow research that is not commercial; whether those reach the weights, and
what is trained from them, is for you to judge."""

DOCUMENT = f"""\
# Terms of use of what lies in this folder

As far as this project knows, without any warranty. Read the publishers' own pages before you publish or sell anything.

{TERMS}

Photos are `photo/<class>/<folder of the archive>_<number>.jpg`, byte for byte. Drawings are
`sketch/<class>/quickdraw_<key_id>.png`.
The files as they were downloaded are in `downloads/`.
"""
