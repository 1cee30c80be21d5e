#include "client/src/rpc_convert.h"

#include <utility>

namespace flux::internal {

Payload TakePayload(v1::Payload* from) {
  Payload to;
  to.data = std::move(*from->mutable_data());
  to.encoding = static_cast<Encoding>(from->encoding());
  if (!from->content_type().empty()) to.content_type = std::move(*from->mutable_content_type());
  if (from->metadata_size() > 0) {
    for (auto& [key, value] : *from->mutable_metadata()) to.metadata.emplace(key, std::move(value));
    from->clear_metadata();
  }
  return to;
}

void MovePayload(Payload&& from, v1::Payload* to) {
  *to->mutable_data() = std::move(from.data);
  to->set_encoding(static_cast<v1::Encoding>(from.encoding));
  if (!from.content_type.empty()) to->set_content_type(std::move(from.content_type));
  for (auto& [key, value] : from.metadata) (*to->mutable_metadata())[key] = std::move(value);
}

Failure TakeFailure(v1::Failure* from) {
  Failure to;
  to.type = std::move(*from->mutable_type());
  to.message = std::move(*from->mutable_message());
  to.non_retriable = from->non_retriable();
  to.source = std::move(*from->mutable_source());
  return to;
}

void MoveFailure(Failure&& from, v1::Failure* to) {
  to->set_type(std::move(from.type));
  to->set_message(std::move(from.message));
  to->set_non_retriable(from.non_retriable);
  if (!from.source.empty()) to->set_source(std::move(from.source));
}

}  // namespace flux::internal
