"""Samples and their images: layouts read in, the Parquet schema, the batch plan, decoding and augmentation."""
