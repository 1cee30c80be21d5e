// A doubly linked list whose links lie in the elements: O(1) insertion and removal without
// allocation.
//
// An element derives from ListLink<Tag> once for each list it may be in at the same time. The list
// owns nothing; an element must be taken out before it is destroyed. Not thread-safe.
#ifndef FLUX_ENGINE_DISPATCH_INTRUSIVE_LIST_H_
#define FLUX_ENGINE_DISPATCH_INTRUSIVE_LIST_H_

#include <cstddef>

namespace flux::engine {

template <typename Tag>
struct ListLink {
  ListLink* previous = nullptr;
  ListLink* next = nullptr;
  bool linked() const { return next != nullptr; }
};

template <typename T, typename Tag>
class IntrusiveList {
 public:
  IntrusiveList() { head_.previous = head_.next = &head_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;

  bool empty() const { return head_.next == &head_; }
  size_t size() const { return size_; }

  T* front() const { return empty() ? nullptr : static_cast<T*>(head_.next); }
  T* back() const { return empty() ? nullptr : static_cast<T*>(head_.previous); }
  // The element behind `element`; nullptr at the end.
  T* Next(const T* element) const {
    ListLink<Tag>* next = static_cast<const ListLink<Tag>*>(element)->next;
    return next == &head_ ? nullptr : static_cast<T*>(next);
  }

  // The element before `element`; nullptr at the begin.
  T* Previous(const T* element) const {
    ListLink<Tag>* previous = static_cast<const ListLink<Tag>*>(element)->previous;
    return previous == &head_ ? nullptr : static_cast<T*>(previous);
  }

  void PushBack(T* element) {
    ListLink<Tag>* link = element;
    link->previous = head_.previous;
    link->next = &head_;
    head_.previous->next = link;
    head_.previous = link;
    ++size_;
  }

  void Remove(T* element) {
    ListLink<Tag>* link = element;
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->previous = link->next = nullptr;
    --size_;
  }

  // Gives every other element its turn first.
  void MoveToBack(T* element) {
    Remove(element);
    PushBack(element);
  }

 private:
  ListLink<Tag> head_;
  size_t size_ = 0;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_DISPATCH_INTRUSIVE_LIST_H_
