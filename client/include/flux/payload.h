// Bytes with a meaning: what tasks are given and answer. The SDK's own shape of it, free of
// protobuf and gRPC.
#ifndef FLUX_PAYLOAD_H_
#define FLUX_PAYLOAD_H_

#include <map>
#include <string>

namespace flux {

// Values equal flux.v1.Encoding's.
enum class Encoding {
  kUnspecified = 0,
  kJson = 1,      // UTF-8 JSON text
  kProtobuf = 2,  // a serialised message; content_type names it
  kBytes = 3,
  kList = 4,    // a serialised flux.v1.PayloadList
  kNone = 5,    // no value: an empty optional, or a skipped step's output
  kCustom = 6,  // a user's codec; content_type names it
};

// A value object; thread-compatible. Limit: the server's payload_bytes_max (4 MiB by default).
struct Payload {
  std::string data;
  Encoding encoding = Encoding::kUnspecified;
  std::string content_type;
  std::map<std::string, std::string> metadata;

  bool operator==(const Payload&) const = default;
};

// Why a task, step or execution failed. `type` is what Catch and non_retriable match; "flux." is
// reserved.
struct Failure {
  std::string type;
  std::string message;
  bool non_retriable = false;
  std::string source;
};

}  // namespace flux

#endif  // FLUX_PAYLOAD_H_
