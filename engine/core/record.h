// Leaving out and putting back what lies in blobs. Private to engine/core.
#ifndef FLUX_ENGINE_CORE_RECORD_H_
#define FLUX_ENGINE_CORE_RECORD_H_

#include "absl/status/status.h"
#include "engine/core/core.h"
#include "flux/v1/record.pb.h"

namespace flux::engine {

// The blob a record's payload lies in, 0: in none. Not of ExecutionStarted, which may have several.
uint64_t BlobOf(const v1::Record& record);
// That payload. Only if BlobOf is not 0.
const v1::Payload& BlobPayload(const v1::Record& record);

// What a payload leaves in its record when it lies in a blob.
void CopyShell(const v1::Payload& from, v1::Payload* to);

// A start record without the inputs that lie in blobs; and with them again.
// RestoreStarted: DataLoss, or what the reader answers.
void StripStarted(const v1::ExecutionStarted& from, v1::ExecutionStarted* to);
absl::Status RestoreStarted(const BlobReader& blobs, v1::ExecutionStarted* started);

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_RECORD_H_
