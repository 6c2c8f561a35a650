"""What is behind `zsbir.promote`: a candidate compared with the champion, its index checked, and the decision carried out."""
