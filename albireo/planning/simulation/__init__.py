"""One group in virtual time: scheduler service, rank 0 and a gateway's submissions are the real ones.

The device and the host are a cost model. Left out are gRPC, text, and all ranks but the first: they do the
same as rank 0 at the same time, and what they cost each other is in the cost model.
"""
