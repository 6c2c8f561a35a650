"""What is served: opened indexes, the champion that is followed, queries gathered into batches."""
