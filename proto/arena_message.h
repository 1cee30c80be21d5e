// Messages of many small parts, all in one arena of their own: made and freed as one.
#ifndef FLUX_PROTO_ARENA_MESSAGE_H_
#define FLUX_PROTO_ARENA_MESSAGE_H_

#include <google/protobuf/arena.h>

#include <memory>

namespace flux {

struct DeleteWithArena {
  template <typename M>
  void operator()(M* message) const {
    delete message->GetArena();
  }
};

// Made by MakeOnArena alone. What is moved into such a message from outside it is copied: fill its
// parts in place instead.
template <typename M>
using ArenaPtr = std::unique_ptr<M, DeleteWithArena>;

template <typename M>
ArenaPtr<M> MakeOnArena() {
  google::protobuf::ArenaOptions options;
  options.start_block_size = 4 * 1024;
  options.max_block_size = 64 * 1024;
  auto* arena = new google::protobuf::Arena(options);
  return ArenaPtr<M>(google::protobuf::Arena::CreateMessage<M>(arena));
}

}  // namespace flux

#endif  // FLUX_PROTO_ARENA_MESSAGE_H_
