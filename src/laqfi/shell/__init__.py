"""The program `laqfi`: a folder that diffusers wrote, made smaller by one command."""
