// What writing and reading a snapshot have in common. Private to engine/core.
#ifndef FLUX_ENGINE_CORE_SNAPSHOT_H_
#define FLUX_ENGINE_CORE_SNAPSHOT_H_

#include <cstdint>

#include "engine/core/state.h"

namespace flux::engine {

// The newest format, which is written. Older ones are read.
inline constexpr uint32_t kSnapshotFormat = 1;

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_SNAPSHOT_H_
