"""Zero-shot sketch-based image retrieval: draw a sketch, find photos, of categories never seen in training.

The verbs are the modules at this level, one stage each:

    images --ingest--> Dataset --teacher--> Knowledge --train--> Run --evaluate--> Report
                                                             Run --index--> Index --search--> photos

`import zsbir` itself loads neither Ray nor MLflow nor torch.
"""

__version__ = "0.1.0"
