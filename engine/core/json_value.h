// What the core reads of payloads: JSON text and list framing. Works on the text itself, slice by
// slice, so that numbers keep their digits and nothing is built that is not asked for. Nothing here
// throws.
#ifndef FLUX_ENGINE_CORE_JSON_VALUE_H_
#define FLUX_ENGINE_CORE_JSON_VALUE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/core/value.h"
#include "flux/v1/payload.pb.h"
#include "google/protobuf/message_lite.h"

namespace flux::engine {

// Deeper JSON is refused.
inline constexpr size_t kJsonDepthMax = 1000;

// Equal messages give equal bytes, maps included.
std::string SerializeDeterministic(const google::protobuf::MessageLite& message);

// Appends `message` as it would stand in field `number` of the message that holds it: so that one
// with very many parts is written without their being in memory as messages all at once.
void AppendField(uint32_t number, const google::protobuf::MessageLite& message, std::string* out);

// RFC 8259; UTF-8 is not checked. InvalidArgument names the byte where it goes wrong.
absl::Status CheckJson(std::string_view json);

// RFC 6901: empty, or "/token" repeated, with ~ only as ~0 and ~1.
bool IsJsonPointer(std::string_view pointer);

// The value `pointer` leads to, as a slice of `json`. Of members of one name the last counts.
// InvalidArgument: not JSON, or it leads nowhere.
absl::StatusOr<std::string_view> FindJsonPointer(std::string_view json, std::string_view pointer);

// The elements of a JSON array. InvalidArgument: not JSON, or not an array.
absl::StatusOr<std::vector<Slice>> SplitJsonArray(std::string_view json);

// The serialised items of a serialised PayloadList. InvalidArgument: malformed.
absl::StatusOr<std::vector<Slice>> SplitPayloadList(std::string_view list);

// The value `pointer` leads to. Nothing stays nothing. InvalidArgument: not a JSON payload, or it
// leads nowhere.
absl::StatusOr<Value> Project(const Value& value, std::string_view pointer);

// Is it JSON true? InvalidArgument: not JSON. Nothing is not true.
absl::StatusOr<bool> IsJsonTrue(const Value& value);

// A whole number of JSON, at least 0. InvalidArgument: anything else.
absl::StatusOr<int64_t> WholeNumber(const Value& value);

// The text of a JSON string. InvalidArgument: anything else.
absl::StatusOr<std::string> JsonString(const Value& value);

// Are they the same JSON? Members in any order; 1 equals 1.0. Nothing equals null. InvalidArgument:
// `value` is not JSON.
absl::StatusOr<bool> EqualsJson(const Value& value, std::string_view json);

// Valid UTF-8, which string fields of protobuf must be: bytes that are not become U+FFFD.
std::string ToUtf8(std::string_view text);
// As ToUtf8, cut to about `bytes_max` at a character's end and marked with an ellipsis.
std::string Excerpt(std::string_view text, size_t bytes_max);

// Names in a sentence: "a, b and 17 more".
inline constexpr size_t kNamesListedMax = 8;
std::string ListSome(const std::vector<std::string>& names, size_t shown_max = kNamesListedMax);

// With quotes. Bytes that are not UTF-8 become U+FFFD.
std::string QuoteJson(std::string_view text);

// What a catch body is given: {"type":…,"message":…,"non_retriable":…,"source":…}.
std::string FailureJson(const v1::Failure& failure);

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_JSON_VALUE_H_
