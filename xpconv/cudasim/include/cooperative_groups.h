#error "cooperative groups are not simulated: use __syncthreads, __syncwarp and the shuffles with a mask"
