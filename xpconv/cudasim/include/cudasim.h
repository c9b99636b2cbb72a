// CUDA C++ on a processor, as far as the source of a kernel sees it: included before each of them.
#pragma once
#include "cudasim/language.h"
#include "cudasim/synchronization.h"
#include "cudasim/atomics.h"
#include "cudasim/math.h"
#include "cudasim/memory.h"

#define XPCONV_CUDASIM 1
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
