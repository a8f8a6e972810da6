#include "kernels.h"

namespace native {

GROUP_FORWARD;
GROUP_BACKWARD;

}  // namespace native
