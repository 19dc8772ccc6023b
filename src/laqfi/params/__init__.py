"""What params.yaml may say: all of it checked; the blocks are in the wings that read them."""
