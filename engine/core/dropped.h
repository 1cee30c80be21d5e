// What is said of a result that counts for nothing.
#ifndef FLUX_ENGINE_CORE_DROPPED_H_
#define FLUX_ENGINE_CORE_DROPPED_H_

#include <string>

#include "engine/core/core.h"

namespace flux::engine {

// Why a result that came to this verdict, kStale or kDuplicate, is dropped: a sentence for people
// that names its delivery and the step's current one. Of any token whose run is the execution's.
std::string WhyDropped(const Execution& execution, const v1::TaskToken& token, Verdict verdict);

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_DROPPED_H_
