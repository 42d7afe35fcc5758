"""Compares the gateway's ids and texts with those of transformers, on real tokenizers.

python -m bench.tokenizers --fetch llama2 --fetch qwen2_5 --fetch gemma2
"""
