// JSON in and out: user input checked before it travels, messages as documents, payloads as what
// they hold.
#ifndef FLUX_CLIENT_FLUXCTL_JSON_H_
#define FLUX_CLIENT_FLUXCTL_JSON_H_

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "flux/v1/definition.pb.h"
#include "flux/v1/payload.pb.h"

namespace flux::ctl {

using Json = nlohmann::ordered_json;

// JSON deeper than this is taken as text when shown and refused as input: the printers recurse.
inline constexpr std::size_t kJsonDepthMax = 512;

// Checks that `text` is one JSON value; `what` names its origin ("--input", "order.json"). Returns
// the text without surrounding blanks and byte order mark, otherwise unchanged, so that numbers
// keep their digits. InvalidArgument with line, column and a hint that shows the line with a caret.
absl::StatusOr<std::string> CheckJson(const std::string& what, std::string_view text);

// A JSON array's elements as texts of their own. `text` has passed CheckJson. InvalidArgument if it
// is not an array.
absl::StatusOr<std::vector<std::string>> SplitJsonArray(const std::string& what,
                                                        const std::string& text);

// What the payload holds: JSON as itself, a list as an array, no value as null. Anything else (and
// JSON that does not parse) as {"encoding": …, "content_type": …, "data_base64": …}.
Json PayloadToJson(const v1::Payload& payload);

// The same as text in one line or, with indent, pretty. JSON payloads keep their bytes when indent
// is negative.
std::string PayloadText(const v1::Payload& payload, int indent);

// Any message of flux.v1 as a document with every field, in the proto's order and under its names,
// except:
// *_time_ms becomes *_time (RFC 3339, null if unset); an enum is its value in lower case without
// prefix; bytes are hex; payloads are decoded by PayloadToJson; an absent message is null.
Json ToJson(const google::protobuf::Message& message);

// Text of a document; never throws, invalid UTF-8 is replaced.
std::string Dump(const Json& json, int indent);

// Definitions alone use protobuf's own JSON mapping with the proto's field names, which reads back
// without loss. InvalidArgument: `json` is malformed, or has a field that definitions do not have.
absl::StatusOr<v1::Definition> DefinitionFromJson(const std::string& what, std::string_view json);
Json DefinitionToJson(const v1::Definition& definition);

// "running" for EXECUTION_STATUS_RUNNING: an enum value's name without the enum's own in front, in
// lower case.
std::string EnumName(const google::protobuf::EnumDescriptor& descriptor, int number);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_JSON_H_
