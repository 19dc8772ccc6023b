"""What params.yaml may say: one frozen class per block, in a file of its own."""
