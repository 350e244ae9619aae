"""One client's local training: a pure, differentiable function from batches of images to the update that it shares.

`local_update` is the function, `Batch` what it reads and `ClientUpdate` what it returns. A federation calls it to train
its clients; an attack calls it on candidate images and differentiates the result.
"""
