"""What is behind `zsbir.evaluate`: a run and a data set opened for an evaluation, and the Report made of them."""
