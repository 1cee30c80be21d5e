// The least any durable engine of this shape can do: the same batched gRPC stream to a worker, the
// same store, one fsynced value a batch, and no engine between. Its rate and latency are the
// ceiling the others are measured against.
#ifndef FLUX_BENCH_CEILING_H_
#define FLUX_BENCH_CEILING_H_

#include <cstdint>
#include <string>

#include "bench/shared.h"

namespace flux::bench {

// Serves until SIGTERM: keeps `in_flight` tasks going round.
int CeilingServer(const std::string& data, const std::string& port_file, uint32_t in_flight,
                  uint32_t payload_bytes);

// Answers every task at once, until SIGTERM.
int CeilingWorker(const std::string& address, Shared* shared);

}  // namespace flux::bench

#endif  // FLUX_BENCH_CEILING_H_
