// How values become payloads and back.
//
// The first that applies is used:
//   1. flux::Codec<T>, specialised by the user;
//   2. protobuf messages (deterministic serialisation; JSON is accepted when reading);
//   3. flux::Bytes;
//   4. std::vector<T> and std::tuple<…> as a list of payloads, so that the server can split it
//   (reading also accepts
//      a JSON array);
//   5. std::optional<T>: no value, or T's own form;
//   6. JSON: bool, integers, float, double, std::string, enums (as numbers), FLUX_STRUCT types, and
//      std::vector, std::array, std::optional, std::pair, std::tuple, std::map<std::string, T> and
//      std::unordered_map<std::string, T> of them; nlohmann::json for any JSON at all.
// Nothing is narrowed silently: a number that does not fit, text that is not UTF-8, a NaN are
// InvalidArgument, with the JSON pointer of the place. Nothing throws.
#ifndef FLUX_CODEC_H_
#define FLUX_CODEC_H_

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "flux/outcome.h"
#include "flux/payload.h"
#include "flux/struct.h"

// Detects messages without their headers: a program that does not use protobuf need not have them.
namespace google::protobuf {
class MessageLite;
}

namespace flux {

// Specialise to give a type a form of your own:
//
//   template <> struct flux::Codec<Matrix> {
//     static constexpr std::string_view kName = "matrix";     // optional; shown to people
//     static absl::StatusOr<flux::Payload> Encode(const Matrix& m);
//     static absl::StatusOr<Matrix> Decode(const flux::Payload& p);
//   };
template <typename T>
struct Codec;

// Raw bytes, opaque to everybody. As a part of JSON: a base64 string.
struct Bytes {
  std::string data;
  bool operator==(const Bytes&) const = default;
};

// Nesting of JSON beyond which it is refused.
inline constexpr size_t kJsonDepthMax = 128;

namespace internal {

template <typename T>
concept UserCodec = requires(const T& value, const Payload& payload) {
  { Codec<T>::Encode(value) } -> std::same_as<absl::StatusOr<Payload>>;
  { Codec<T>::Decode(payload) } -> std::same_as<absl::StatusOr<T>>;
};

template <typename T>
inline constexpr bool kIsMessage =
    std::conjunction_v<std::is_class<T>, std::is_base_of<google::protobuf::MessageLite, T>>;

template <typename T>
struct VectorTraits : std::false_type {};
template <typename T>
struct VectorTraits<std::vector<T>> : std::true_type {
  using Element = T;
};
template <typename T>
struct OptionalTraits : std::false_type {
  using Element = T;
};
template <typename T>
struct OptionalTraits<std::optional<T>> : std::true_type {
  using Element = T;
};
template <typename T>
struct ArrayTraits : std::false_type {};
template <typename T, size_t kSize>
struct ArrayTraits<std::array<T, kSize>> : std::true_type {
  using Element = T;
};
template <typename T>
struct TupleTraits : std::false_type {};
template <typename... T>
struct TupleTraits<std::tuple<T...>> : std::true_type {};
template <typename A, typename B>
struct TupleTraits<std::pair<A, B>> : std::true_type {};
template <typename T>
struct MapTraits : std::false_type {};
template <typename T, typename... Rest>
struct MapTraits<std::map<std::string, T, Rest...>> : std::true_type {
  using Element = T;
};
template <typename T, typename... Rest>
struct MapTraits<std::unordered_map<std::string, T, Rest...>> : std::true_type {
  using Element = T;
};

template <typename T>
inline constexpr bool kIsCharacter =
    std::is_same_v<T, char> || std::is_same_v<T, wchar_t> || std::is_same_v<T, char8_t> ||
    std::is_same_v<T, char16_t> || std::is_same_v<T, char32_t>;
template <typename T>
inline constexpr bool kIsInteger =
    std::is_integral_v<T> && !std::is_same_v<T, bool> && !kIsCharacter<T>;

template <typename T>
constexpr bool HasJson();

template <typename Tuple, size_t... kIndex>
constexpr bool TupleHasJson(std::index_sequence<kIndex...>) {
  return (HasJson<std::tuple_element_t<kIndex, Tuple>>() && ...);
}

// Whether T has a JSON form. The members of a FLUX_STRUCT are checked where they are written (a
// struct may contain a list of itself).
template <typename T>
constexpr bool HasJson() {
  if constexpr (std::is_same_v<T, bool> || kIsInteger<T> || std::is_same_v<T, float> ||
                std::is_same_v<T, double> || std::is_enum_v<T> || std::is_same_v<T, std::string> ||
                std::is_same_v<T, Bytes> || std::is_same_v<T, Unit> ||
                std::is_same_v<T, nlohmann::json> || Struct<T>) {
    return true;
  } else if constexpr (VectorTraits<T>::value) {
    return HasJson<typename VectorTraits<T>::Element>();
  } else if constexpr (OptionalTraits<T>::value) {
    return HasJson<typename OptionalTraits<T>::Element>();
  } else if constexpr (ArrayTraits<T>::value) {
    return HasJson<typename ArrayTraits<T>::Element>();
  } else if constexpr (MapTraits<T>::value) {
    return HasJson<typename MapTraits<T>::Element>();
  } else if constexpr (TupleTraits<T>::value) {
    return TupleHasJson<T>(std::make_index_sequence<std::tuple_size_v<T>>());
  } else {
    return false;
  }
}

template <typename T>
constexpr bool HasCodec();

template <typename Tuple, size_t... kIndex>
constexpr bool TupleHasCodec(std::index_sequence<kIndex...>) {
  return (HasCodec<std::tuple_element_t<kIndex, Tuple>>() && ...);
}

template <typename T>
constexpr bool HasCodec() {
  if constexpr (std::is_reference_v<T> || std::is_pointer_v<T> || std::is_const_v<T>) {
    return false;
  } else if constexpr (UserCodec<T>) {
    return true;
  } else if constexpr (kIsMessage<T>) {
    return true;
  } else if constexpr (VectorTraits<T>::value) {
    return HasCodec<typename VectorTraits<T>::Element>();
  } else if constexpr (OptionalTraits<T>::value) {
    return HasCodec<typename OptionalTraits<T>::Element>();
  } else if constexpr (TupleTraits<T>::value) {
    return TupleHasCodec<T>(std::make_index_sequence<std::tuple_size_v<T>>());
  } else {
    return HasJson<T>();
  }
}

// ---- JSON, without its library in this header
// -----------------------------------------------------------------

absl::Status WriteString(std::string_view value, std::string* out);
absl::Status WriteDouble(double value, std::string* out);
absl::Status WriteFloat(float value, std::string* out);
absl::Status WriteAny(const nlohmann::json& value, std::string* out);
void WriteBool(bool value, std::string* out);
void WriteSigned(int64_t value, std::string* out);
void WriteUnsigned(uint64_t value, std::string* out);
void WriteBase64(std::string_view value, std::string* out);

absl::Status ReadBool(const nlohmann::json& node, bool* value);
absl::Status ReadSigned(const nlohmann::json& node, int64_t min, int64_t max, int64_t* value);
absl::Status ReadUnsigned(const nlohmann::json& node, uint64_t max, uint64_t* value);
absl::Status ReadDouble(const nlohmann::json& node, double* value);
absl::Status ReadFloat(const nlohmann::json& node, float* value);
absl::Status ReadString(const nlohmann::json& node, std::string* value);
absl::Status ReadBase64(const nlohmann::json& node, std::string* value);
void ReadAny(const nlohmann::json& node, nlohmann::json* value);

bool IsNull(const nlohmann::json& node);
absl::Status ExpectObject(const nlohmann::json& node);
absl::Status ExpectArray(const nlohmann::json& node, size_t* size);
absl::Status ExpectLength(size_t expected, size_t found);
const nlohmann::json& Item(const nlohmann::json& node, size_t index);
// Null if there is none of that name.
const nlohmann::json* FindMember(const nlohmann::json& node, std::string_view name);
absl::Status ForEachMember(
    const nlohmann::json& node,
    const std::function<absl::Status(const std::string& name, const nlohmann::json& value)>& use);

// Prepends a reference token to the JSON pointer that an error's message begins with.
absl::Status Within(std::string_view token, const absl::Status& status);
absl::Status Within(size_t index, const absl::Status& status);

// A parsed JSON text.
class JsonDocument {
 public:
  // InvalidArgument: not JSON, not UTF-8, or nested deeper than kJsonDepthMax.
  static absl::StatusOr<JsonDocument> Parse(std::string_view text);
  JsonDocument(JsonDocument&&) noexcept;
  JsonDocument& operator=(JsonDocument&&) noexcept;
  ~JsonDocument();

  const nlohmann::json& root() const { return *root_; }

 private:
  explicit JsonDocument(std::unique_ptr<nlohmann::json> root);

  std::unique_ptr<nlohmann::json> root_;
};

template <typename T>
absl::Status WriteJson(const T& value, std::string* out);

template <typename Range>
absl::Status WriteJsonArray(const Range& range, std::string* out) {
  using Element = typename Range::value_type;
  out->push_back('[');
  for (size_t i = 0; i < range.size(); ++i) {
    if (i > 0) out->push_back(',');
    absl::Status status;
    if constexpr (std::is_same_v<Element, bool>) {
      const bool element = range[i];  // std::vector<bool> has no elements to refer to
      status = WriteJson(element, out);
    } else {
      status = WriteJson(range[i], out);
    }
    if (!status.ok()) return Within(i, status);
  }
  out->push_back(']');
  return absl::OkStatus();
}

template <typename Tuple, size_t... kIndex>
absl::Status WriteJsonTuple(const Tuple& tuple, std::string* out, std::index_sequence<kIndex...>) {
  absl::Status status;
  out->push_back('[');
  auto write = [&](size_t index, const auto& element) {
    if (index > 0) out->push_back(',');
    status = WriteJson(element, out);
    if (!status.ok()) status = Within(index, status);
    return status.ok();
  };
  static_cast<void>((write(kIndex, std::get<kIndex>(tuple)) && ...));
  out->push_back(']');
  return status;
}

template <typename T>
absl::Status WriteJsonStruct(const T& value, std::string* out) {
  absl::Status status;
  bool first = true;
  out->push_back('{');
  auto write = [&](const auto& member) {
    if (!first) out->push_back(',');
    first = false;
    out->push_back('"');
    out->append(member.name);
    out->append("\":");
    status = WriteJson(value.*(member.pointer), out);
    if (!status.ok()) status = Within(member.name, status);
    return status.ok();
  };
  std::apply([&](const auto&... member) { static_cast<void>((write(member) && ...)); },
             FluxMembers(static_cast<const T*>(nullptr)));
  out->push_back('}');
  return status;
}

template <typename T>
absl::Status WriteJsonMap(const T& value, std::string* out) {
  // Sorted, so that equal values give equal bytes.
  std::vector<const typename T::value_type*> entries;
  for (const auto& entry : value) entries.push_back(&entry);
  std::sort(entries.begin(), entries.end(),
            [](const auto* a, const auto* b) { return a->first < b->first; });
  out->push_back('{');
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) out->push_back(',');
    absl::Status status = WriteString(entries[i]->first, out);
    out->push_back(':');
    if (status.ok()) status = WriteJson(entries[i]->second, out);
    if (!status.ok()) return Within(entries[i]->first, status);
  }
  out->push_back('}');
  return absl::OkStatus();
}

// Appends `value` as JSON. InvalidArgument: text that is not UTF-8, or a number JSON does not have.
template <typename T>
absl::Status WriteJson(const T& value, std::string* out) {
  static_assert(
      HasJson<T>(),
      "flux: a member of a FLUX_STRUCT (or of a list in it) has no JSON form; say FLUX_STRUCT of "
      "its type too, or use flux::Bytes");
  if constexpr (std::is_same_v<T, bool>) {
    WriteBool(value, out);
  } else if constexpr (std::is_enum_v<T>) {
    return WriteJson(static_cast<std::conditional_t<std::is_signed_v<std::underlying_type_t<T>>,
                                                    int64_t, uint64_t>>(value),
                     out);
  } else if constexpr (kIsInteger<T>) {
    if constexpr (std::is_signed_v<T>) {
      WriteSigned(value, out);
    } else {
      WriteUnsigned(value, out);
    }
  } else if constexpr (std::is_same_v<T, float>) {
    return WriteFloat(value, out);
  } else if constexpr (std::is_same_v<T, double>) {
    return WriteDouble(value, out);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return WriteString(value, out);
  } else if constexpr (std::is_same_v<T, Bytes>) {
    WriteBase64(value.data, out);
  } else if constexpr (std::is_same_v<T, Unit>) {
    out->append("null");
  } else if constexpr (std::is_same_v<T, nlohmann::json>) {
    return WriteAny(value, out);
  } else if constexpr (Struct<T>) {
    return WriteJsonStruct(value, out);
  } else if constexpr (OptionalTraits<T>::value) {
    if (value.has_value()) return WriteJson(*value, out);
    out->append("null");
  } else if constexpr (VectorTraits<T>::value || ArrayTraits<T>::value) {
    return WriteJsonArray(value, out);
  } else if constexpr (MapTraits<T>::value) {
    return WriteJsonMap(value, out);
  } else if constexpr (TupleTraits<T>::value) {
    return WriteJsonTuple(value, out, std::make_index_sequence<std::tuple_size_v<T>>());
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status ReadJson(const nlohmann::json& node, T* value);

template <typename Tuple, size_t... kIndex>
absl::Status ReadJsonTuple(const nlohmann::json& node, Tuple* tuple,
                           std::index_sequence<kIndex...>) {
  size_t size = 0;
  absl::Status status = ExpectArray(node, &size);
  if (status.ok()) status = ExpectLength(sizeof...(kIndex), size);
  if (!status.ok()) return status;
  auto read = [&](size_t index, auto* element) {
    status = ReadJson(Item(node, index), element);
    if (!status.ok()) status = Within(index, status);
    return status.ok();
  };
  static_cast<void>((read(kIndex, &std::get<kIndex>(*tuple)) && ...));
  return status;
}

template <typename T>
absl::Status ReadJsonStruct(const nlohmann::json& node, T* value) {
  absl::Status status = ExpectObject(node);
  if (!status.ok()) return status;
  auto read = [&](const auto& member) {
    const nlohmann::json* found = FindMember(node, member.name);
    if (found == nullptr) return true;
    status = ReadJson(*found, &(value->*(member.pointer)));
    if (!status.ok()) status = Within(member.name, status);
    return status.ok();
  };
  std::apply([&](const auto&... member) { static_cast<void>((read(member) && ...)); },
             FluxMembers(static_cast<const T*>(nullptr)));
  return status;
}

// Reads `node` into `value`. InvalidArgument names the place and what was expected; `value` is then
// unspecified.
template <typename T>
absl::Status ReadJson(const nlohmann::json& node, T* value) {
  static_assert(
      HasJson<T>(),
      "flux: a member of a FLUX_STRUCT (or of a list in it) has no JSON form; say FLUX_STRUCT of "
      "its type too, or use flux::Bytes");
  if constexpr (std::is_same_v<T, bool>) {
    return ReadBool(node, value);
  } else if constexpr (std::is_enum_v<T>) {
    std::underlying_type_t<T> number{};
    absl::Status status = ReadJson(node, &number);
    *value = static_cast<T>(number);
    return status;
  } else if constexpr (kIsInteger<T>) {
    using Limits = std::numeric_limits<T>;
    absl::Status status;
    if constexpr (std::is_signed_v<T>) {
      int64_t number = 0;
      status = ReadSigned(node, Limits::min(), Limits::max(), &number);
      *value = static_cast<T>(number);
    } else {
      uint64_t number = 0;
      status = ReadUnsigned(node, Limits::max(), &number);
      *value = static_cast<T>(number);
    }
    return status;
  } else if constexpr (std::is_same_v<T, float>) {
    return ReadFloat(node, value);
  } else if constexpr (std::is_same_v<T, double>) {
    return ReadDouble(node, value);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return ReadString(node, value);
  } else if constexpr (std::is_same_v<T, Bytes>) {
    return ReadBase64(node, &value->data);
  } else if constexpr (std::is_same_v<T, Unit>) {
    return absl::OkStatus();
  } else if constexpr (std::is_same_v<T, nlohmann::json>) {
    ReadAny(node, value);
    return absl::OkStatus();
  } else if constexpr (Struct<T>) {
    return ReadJsonStruct(node, value);
  } else if constexpr (OptionalTraits<T>::value) {
    value->reset();
    if (IsNull(node)) return absl::OkStatus();
    return ReadJson(node, &value->emplace());
  } else if constexpr (VectorTraits<T>::value) {
    size_t size = 0;
    absl::Status status = ExpectArray(node, &size);
    if (!status.ok()) return status;
    value->clear();
    value->reserve(size);
    for (size_t i = 0; i < size; ++i) {
      typename T::value_type element{};
      status = ReadJson(Item(node, i), &element);
      if (!status.ok()) return Within(i, status);
      value->push_back(std::move(element));
    }
    return absl::OkStatus();
  } else if constexpr (ArrayTraits<T>::value) {
    size_t size = 0;
    absl::Status status = ExpectArray(node, &size);
    if (status.ok()) status = ExpectLength(value->size(), size);
    for (size_t i = 0; status.ok() && i < size; ++i) {
      status = ReadJson(Item(node, i), &(*value)[i]);
      if (!status.ok()) status = Within(i, status);
    }
    return status;
  } else if constexpr (MapTraits<T>::value) {
    value->clear();
    return ForEachMember(node, [value](const std::string& name, const nlohmann::json& member) {
      absl::Status status = ReadJson(member, &(*value)[name]);
      return status.ok() ? status : Within(name, status);
    });
  } else if constexpr (TupleTraits<T>::value) {
    return ReadJsonTuple(node, value, std::make_index_sequence<std::tuple_size_v<T>>());
  }
}

// ---- payloads
// --------------------------------------------------------------------------------------------------

// Frames payloads as a serialised flux.v1.PayloadList.
class ListWriter {
 public:
  void Add(const Payload& item);
  Payload Finish() &&;

 private:
  std::string data_;
};

// The items of a list: a LIST frame, or a JSON array (each item then is JSON). InvalidArgument:
// neither.
absl::StatusOr<std::vector<Payload>> SplitList(const Payload& list);

// What `pointer` (RFC 6901; empty: everything) leads to in a JSON or LIST payload. A member that is
// not there is a payload of Encoding::kNone, which reads as an empty optional. InvalidArgument:
// opaque payload, or the pointer goes through something that has no parts.
absl::StatusOr<Payload> Project(Payload payload, std::string_view pointer);

// The JSON text of a JSON, LIST or NONE payload (null); InvalidArgument for opaque ones.
absl::StatusOr<std::string> ToJsonText(const Payload& payload);

Payload JsonPayload(std::string text);
absl::StatusOr<Payload> EncodeMessage(const google::protobuf::MessageLite& message);
absl::Status DecodeMessage(const Payload& payload, google::protobuf::MessageLite* message);
std::string MessageTypeName(const google::protobuf::MessageLite& message);
absl::StatusOr<std::string> DecodeBytes(Payload payload);
// Short cuts for the commonest payloads; false: not that simple, parse it.
bool FastReadString(std::string_view json, std::string* value);
bool FastReadSigned(std::string_view json, int64_t* value);
absl::Status WrongEncoding(const Payload& payload, std::string_view expected);
// The longest prefix of `text` that is UTF-8.
std::string_view ValidUtf8Prefix(std::string_view text);
// "item 3: …"
absl::Status InItem(size_t index, const absl::Status& status);

}  // namespace internal

// The payload of a value. InvalidArgument: it cannot be written (see the top of this file).
template <typename T>
absl::StatusOr<Payload> Encode(const T& value);

// The value of a payload. InvalidArgument: it does not read as a T; the message says what was
// expected, what was found, and where.
template <typename T>
absl::StatusOr<T> Decode(Payload payload);

namespace internal {

template <typename Tuple, size_t... kIndex>
absl::StatusOr<Payload> EncodeTuple(const Tuple& tuple, std::index_sequence<kIndex...>) {
  ListWriter list;
  absl::Status status;
  auto add = [&](size_t index, const auto& element) {
    absl::StatusOr<Payload> item = Encode(element);
    if (item.ok()) {
      list.Add(*item);
    } else {
      status = InItem(index, item.status());
    }
    return status.ok();
  };
  static_cast<void>((add(kIndex, std::get<kIndex>(tuple)) && ...));
  if (!status.ok()) return status;
  return std::move(list).Finish();
}

template <typename Tuple, size_t... kIndex>
absl::StatusOr<Tuple> DecodeTuple(const Payload& payload, std::index_sequence<kIndex...>) {
  absl::StatusOr<std::vector<Payload>> items = SplitList(payload);
  if (!items.ok()) return items.status();
  absl::Status status = ExpectLength(sizeof...(kIndex), items->size());
  if (!status.ok()) return status;
  Tuple tuple{};
  auto read = [&]<typename E>(size_t index, E* element) {
    absl::StatusOr<E> value = Decode<E>(std::move((*items)[index]));
    if (value.ok()) {
      *element = *std::move(value);
    } else {
      status = InItem(index, value.status());
    }
    return status.ok();
  };
  static_cast<void>((read(kIndex, &std::get<kIndex>(tuple)) && ...));
  if (!status.ok()) return status;
  return tuple;
}

// How people read a type: "list<Page>", "string"; the same whatever the compiler.
template <typename T>
std::string TypeName();

template <typename Tuple, size_t... kIndex>
std::string TupleTypeName(std::index_sequence<kIndex...>) {
  std::string name = "tuple<";
  static_cast<void>(
      ((name += (kIndex > 0 ? ", " : "") + TypeName<std::tuple_element_t<kIndex, Tuple>>()), ...));
  return name + ">";
}

template <typename T>
std::string TypeName() {
  if constexpr (UserCodec<T>) {
    if constexpr (requires { std::string(Codec<T>::kName); }) {
      return std::string(Codec<T>::kName);
    } else {
      return "custom";
    }
  } else if constexpr (kIsMessage<T>) {
    return MessageTypeName(T());
  } else if constexpr (std::is_same_v<T, bool>) {
    return "bool";
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "string";
  } else if constexpr (std::is_same_v<T, Bytes>) {
    return "bytes";
  } else if constexpr (std::is_same_v<T, Unit>) {
    return "nothing";
  } else if constexpr (std::is_same_v<T, float>) {
    return "float";
  } else if constexpr (std::is_same_v<T, double>) {
    return "double";
  } else if constexpr (std::is_same_v<T, nlohmann::json>) {
    return "json";
  } else if constexpr (std::is_enum_v<T>) {
    return "enum";
  } else if constexpr (kIsInteger<T>) {
    return (std::is_signed_v<T> ? "int" : "uint") + std::to_string(sizeof(T) * 8);
  } else if constexpr (Struct<T>) {
    return std::string(FluxTypeName(static_cast<const T*>(nullptr)));
  } else if constexpr (VectorTraits<T>::value) {
    return "list<" + TypeName<typename VectorTraits<T>::Element>() + ">";
  } else if constexpr (ArrayTraits<T>::value) {
    return "list<" + TypeName<typename ArrayTraits<T>::Element>() + ">";
  } else if constexpr (OptionalTraits<T>::value) {
    return "optional<" + TypeName<typename OptionalTraits<T>::Element>() + ">";
  } else if constexpr (MapTraits<T>::value) {
    return "map<" + TypeName<typename MapTraits<T>::Element>() + ">";
  } else if constexpr (TupleTraits<T>::value) {
    return TupleTypeName<T>(std::make_index_sequence<std::tuple_size_v<T>>());
  } else {
    return "custom";
  }
}

// The one check of everything that travels: parameters, results, literals, progress.
template <typename T>
constexpr bool CheckPayloadType() {
  static_assert(std::is_copy_constructible_v<T>,
                "flux: a payload type must be copyable: a value may go to several steps and "
                "attempts; move-only "
                "types (std::unique_ptr, streams, locks) cannot be task parameters or results");
  if constexpr (std::is_copy_constructible_v<T>) {
    static_assert(HasCodec<T>(),
                  "flux: this type has no codec: say FLUX_STRUCT(Type, members...) right after it, "
                  "use a protobuf "
                  "message, or specialise flux::Codec<Type>");
    if constexpr (HasCodec<T>()) {
      static_assert(std::is_default_constructible_v<T> || UserCodec<T>,
                    "flux: a payload type must be default-constructible, since decoding fills in "
                    "its members; "
                    "give it a default constructor or specialise flux::Codec<Type>");
      return std::is_default_constructible_v<T> || UserCodec<T>;
    }
  }
  return false;
}

}  // namespace internal

template <typename T>
absl::StatusOr<Payload> Encode(const T& value) {
  if constexpr (internal::CheckPayloadType<T>()) {
    if constexpr (internal::UserCodec<T>) {
      return Codec<T>::Encode(value);
    } else if constexpr (internal::kIsMessage<T>) {
      return internal::EncodeMessage(value);
    } else if constexpr (std::is_same_v<T, Bytes>) {
      return Payload{
          .data = value.data, .encoding = Encoding::kBytes, .content_type = {}, .metadata = {}};
    } else if constexpr (internal::VectorTraits<T>::value) {
      internal::ListWriter list;
      for (size_t i = 0; i < value.size(); ++i) {
        const typename T::value_type& element = value[i];
        absl::StatusOr<Payload> item = Encode(element);
        if (!item.ok()) return internal::InItem(i, item.status());
        list.Add(*item);
      }
      return std::move(list).Finish();
    } else if constexpr (internal::TupleTraits<T>::value) {
      return internal::EncodeTuple(value, std::make_index_sequence<std::tuple_size_v<T>>());
    } else if constexpr (internal::OptionalTraits<T>::value) {
      if (value.has_value()) return Encode(*value);
      return Payload{.data = {}, .encoding = Encoding::kNone, .content_type = {}, .metadata = {}};
    } else {
      std::string text;
      absl::Status status = internal::WriteJson(value, &text);
      if (!status.ok()) return status;
      return internal::JsonPayload(std::move(text));
    }
  } else {
    return absl::InternalError("no codec");
  }
}

template <typename T>
absl::StatusOr<T> Decode(Payload payload) {
  if constexpr (internal::CheckPayloadType<T>()) {
    if constexpr (internal::UserCodec<T>) {
      return Codec<T>::Decode(payload);
    } else if constexpr (internal::kIsMessage<T>) {
      T message;
      absl::Status status = internal::DecodeMessage(payload, &message);
      if (!status.ok()) return status;
      return message;
    } else if constexpr (std::is_same_v<T, Bytes>) {
      absl::StatusOr<std::string> data = internal::DecodeBytes(std::move(payload));
      if (!data.ok()) return data.status();
      return Bytes{*std::move(data)};
    } else if constexpr (internal::VectorTraits<T>::value) {
      absl::StatusOr<std::vector<Payload>> items = internal::SplitList(payload);
      if (!items.ok()) return items.status();
      T list;
      list.reserve(items->size());
      for (size_t i = 0; i < items->size(); ++i) {
        absl::StatusOr<typename T::value_type> element =
            Decode<typename T::value_type>(std::move((*items)[i]));
        if (!element.ok()) return internal::InItem(i, element.status());
        list.push_back(*std::move(element));
      }
      return list;
    } else if constexpr (internal::TupleTraits<T>::value) {
      return internal::DecodeTuple<T>(payload, std::make_index_sequence<std::tuple_size_v<T>>());
    } else if constexpr (internal::OptionalTraits<T>::value) {
      if (payload.encoding == Encoding::kNone) return T();
      if (payload.encoding == Encoding::kJson && payload.data == "null") return T();
      absl::StatusOr<typename T::value_type> value =
          Decode<typename T::value_type>(std::move(payload));
      if (!value.ok()) return value.status();
      return T(*std::move(value));
    } else {
      if (payload.encoding == Encoding::kJson) {
        if constexpr (std::is_same_v<T, std::string>) {
          std::string text;
          if (internal::FastReadString(payload.data, &text)) return text;
        } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, int32_t>) {
          int64_t number = 0;
          if (internal::FastReadSigned(payload.data, &number) &&
              number >= std::numeric_limits<T>::min() && number <= std::numeric_limits<T>::max()) {
            return static_cast<T>(number);
          }
        }
      } else if (std::is_same_v<T, Unit>) {
        return T{};  // there is nothing to read
      } else if (payload.encoding != Encoding::kList) {
        return internal::WrongEncoding(payload, internal::TypeName<T>());
      }
      absl::StatusOr<std::string> text = internal::ToJsonText(payload);
      if (!text.ok()) return text.status();
      absl::StatusOr<internal::JsonDocument> document = internal::JsonDocument::Parse(*text);
      if (!document.ok()) return document.status();
      T value{};
      absl::Status status = internal::ReadJson(document->root(), &value);
      if (!status.ok()) return status;
      return value;
    }
  } else {
    return absl::InternalError("no codec");
  }
}

}  // namespace flux

#endif  // FLUX_CODEC_H_
