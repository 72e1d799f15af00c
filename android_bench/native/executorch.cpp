// ExecuTorch's Program and Method API. The headers come from the wheel, the library from the wheel (host) or from the
// Android package (phone), both of the same version.
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

// Parts of the API that these sources need are marked as experimental or deprecated.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include "backend.h"
#include "copies.h"
#include "executorch_memory.h"
#include "failure.h"

// extension/threadpool/threadpool.h includes a header of pthreadpool that the wheel does not ship.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t num_threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using namespace runner;

using executorch::aten::Tensor;
using executorch::aten::TensorImpl;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::MemoryManager;
using executorch::runtime::Method;
using executorch::runtime::MethodMeta;
using executorch::runtime::Program;
using executorch::runtime::Result;
using executorch::runtime::Span;
using executorch::runtime::Tag;
using executorch::runtime::TensorInfo;

constexpr const char* METHOD = "forward";

// A port of the method: where its data lies, and whether that memory is ours, so that it may be another next time.
struct Port {
  void* data = nullptr;
  bool ours = false;
  std::vector<executorch::aten::SizesType> sizes;
  std::vector<executorch::aten::DimOrderType> order;
  executorch::aten::ScalarType type;
  size_t bytes = 0;
};

struct Runtime {
  explicit Runtime(const char* path) : loader(path) {}
  FileLoader loader;
  std::vector<std::vector<uint8_t>> dummy;
  std::vector<Span<uint8_t>> planned;
  HeapAllocator heap;
  ScratchAllocator scratch;
  HierarchicalAllocator* arena = nullptr;
  MemoryManager* manager = nullptr;
  Program* program = nullptr;
  Method* method = nullptr;
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  struct copies copies{};
  bool swaps = false;
  std::string evidence;
  std::string delegates;
  enum accelerated accelerated = ACCELERATED_UNKNOWN;
};

Runtime& of(backend* self) { return *static_cast<Runtime*>(self->self); }

void open_library(backend* self, const plan* plan) {
  if (plan->library != nullptr)
    fail(EXIT_USAGE, "this runner has its library linked in; the plan must say 'library -'");
  if (plan->weight_cache != nullptr) fail(EXIT_USAGE, "ExecuTorch's files take no weight cache");
  executorch::runtime::runtime_init();
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr) fail(EXIT_LIBRARY, "the ExecuTorch library has no thread pool");
  auto threads = static_cast<uint32_t>(plan->threads);
  // The pool begins with as many threads as the processor has fast cores.
  if (!pool->_unsafe_reset_threadpool(threads) || pool->get_thread_count() != threads) {
    fail(EXIT_LIBRARY, "ExecuTorch cannot use %d threads", plan->threads);
  }
  self->self = new Runtime(plan->model);
}

void plan_memory(Runtime& runtime, const MethodMeta& meta) {
  for (size_t i = 0; i < meta.num_memory_planned_buffers(); i++) {
    auto size = meta.memory_planned_buffer_size(i);
    check(size.error(), EXIT_MODEL, "tell the size of its planned memory");
    auto bytes = static_cast<size_t>(size.get());
    runtime.planned.emplace_back(static_cast<uint8_t*>(aligned(bytes)), bytes);
  }
  runtime.arena = new HierarchicalAllocator({runtime.planned.data(), runtime.planned.size()});
  runtime.manager = new MemoryManager(&runtime.heap, runtime.arena, &runtime.scratch);
}

// Names of the backends, each once; what no delegate takes are instructions of the runtime's own kernels.
void describe(Runtime& runtime, const MethodMeta& meta) {
  size_t delegates = meta.num_backends(), instructions = meta.num_instructions();
  for (size_t i = 0; i < delegates; i++) {
    auto name = meta.get_backend_name(i);
    check(name.error(), EXIT_MODEL, "name a delegate");
    std::string text = std::strcmp(name.get(), "XnnpackBackend") == 0 ? "XNNPACK" : name.get();
    if (("+" + runtime.delegates + "+").find("+" + text + "+") != std::string::npos) continue;
    runtime.delegates += (runtime.delegates.empty() ? "" : "+") + text;
  }
  runtime.evidence = "the method has " + std::to_string(delegates) + " delegates and " + std::to_string(instructions) +
                     " instructions, calls of delegates among them; it loaded, so the delegates were made";
  // As many instructions as delegates are all calls of them. Of more, some may be operators, which is not told.
  if (delegates == 0) {
    runtime.accelerated = ACCELERATED_PARTLY;
  } else if (instructions == delegates) {
    runtime.accelerated = ACCELERATED_FULLY;
  }
}

Port port_of(const Result<TensorInfo>& info) {
  check(info.error(), EXIT_MODEL, "describe a port; ports must be tensors");
  Port port;
  port.sizes.assign(info->sizes().begin(), info->sizes().end());
  port.order.assign(info->dim_order().begin(), info->dim_order().end());
  port.type = info->scalar_type();
  port.bytes = info->nbytes();
  return port;
}

// The runtime takes an input as it is where its memory is not planned, and copies it to the planned place otherwise.
void set_input(Runtime& runtime, size_t position, void* data) {
  Port& port = runtime.inputs[position];
  TensorImpl impl(port.type, static_cast<ssize_t>(port.sizes.size()), port.sizes.data(), data, port.order.data());
  check(runtime.method->set_input(EValue(Tensor(&impl)), position), EXIT_MODEL, "set an input");
  port.data = data;
}

void set_output(Runtime& runtime, size_t position, void* data) {
  Port& port = runtime.outputs[position];
  check(runtime.method->set_output_data_ptr(data, port.bytes, position), EXIT_MODEL, "place an output");
  port.data = data;
}

void place_inputs(Runtime& runtime, const MethodMeta& meta) {
  for (size_t i = 0; i < meta.num_inputs(); i++) {
    auto info = meta.input_tensor_meta(i);
    Port port = port_of(info);
    port.ours = !info->is_memory_planned();
    runtime.inputs.push_back(port);
    void* memory = aligned(port.bytes);
    set_input(runtime, i, memory);
    if (!port.ours) std::free(memory);
  }
  std::vector<EValue> values(meta.num_inputs());
  check(runtime.method->get_inputs(values.data(), values.size()), EXIT_MODEL, "give its inputs");
  for (size_t i = 0; i < values.size(); i++) {
    void* memory = values[i].toTensor().mutable_data_ptr();
    if (runtime.inputs[i].ours && memory != runtime.inputs[i].data)
      fail(EXIT_MODEL, "input %zu was not taken as is", i);
    runtime.inputs[i].data = memory;
  }
}

void place_outputs(Runtime& runtime, const MethodMeta& meta) {
  for (size_t i = 0; i < meta.num_outputs(); i++) {
    auto info = meta.output_tensor_meta(i);
    Port port = port_of(info);
    port.ours = !info->is_memory_planned();
    runtime.outputs.push_back(port);
    if (port.ours) {
      set_output(runtime, i, aligned(port.bytes));
    } else {
      runtime.outputs[i].data = const_cast<void*>(runtime.method->get_output(i).toTensor().const_data_ptr());
    }
  }
}

void check_port(const std::vector<Port>& ports, const char* side, const port& wanted) {
  if (wanted.position >= ports.size()) {
    fail(EXIT_MODEL, "the model has %zu %ss, the plan puts %s at position %zu", ports.size(), side, wanted.name,
         wanted.position);
  }
  if (ports[wanted.position].bytes != wanted.bytes) {
    fail(EXIT_MODEL, "%s %zu of the model has %zu bytes, the plan says that %s has %zu", side, wanted.position,
         ports[wanted.position].bytes, wanted.name, wanted.bytes);
  }
}

void check_ports(const Runtime& runtime, const plan& plan) {
  size_t inputs = plan.input_count + plan.state_in_count, outputs = plan.output_count + plan.state_out_count;
  if (runtime.inputs.size() != inputs || runtime.outputs.size() != outputs) {
    fail(EXIT_MODEL, "the model has %zu inputs and %zu outputs, the plan says %zu and %zu", runtime.inputs.size(),
         runtime.outputs.size(), inputs, outputs);
  }
  for (size_t i = 0; i < plan.input_count; i++) check_port(runtime.inputs, "input", plan.inputs[i].port);
  for (size_t i = 0; i < plan.output_count; i++) check_port(runtime.outputs, "output", plan.outputs[i]);
  for (size_t i = 0; i < plan.state_in_count; i++) check_port(runtime.inputs, "input", plan.state_ins[i]);
  for (size_t i = 0; i < plan.state_out_count; i++) check_port(runtime.outputs, "output", plan.state_outs[i]);
}

bool all_ours(const Runtime& runtime, const plan& plan) {
  for (size_t i = 0; i < plan.state_in_count; i++) {
    if (!runtime.inputs[plan.state_ins[i].position].ours) return false;
  }
  for (size_t i = 0; i < plan.state_out_count; i++) {
    if (!runtime.outputs[plan.state_outs[i].position].ours) return false;
  }
  return plan.state_count > 0;
}

// Planned memory of an input is given away after its last reader, so a slot there would not outlive the step.
void refuse_planned_slots(const Runtime& runtime, const plan& plan) {
  for (size_t i = 0; i < plan.state_count; i++) {
    const state& state = plan.states[i];
    for (size_t at = 0; at < state.in_count && state.in_count > 1; at++) {
      const port& slot = plan.state_ins[state.in + at];
      if (runtime.inputs[slot.position].ours) continue;
      fail(EXIT_MODEL, "the program plans the memory of slot %s, so it does not outlive a step", slot.name);
    }
  }
}

void load_model(backend* self, const plan* plan) {
  Runtime& runtime = of(self);
  auto program = Program::load(&runtime.loader, Program::Verification::InternalConsistency);
  check(program.error(), EXIT_MODEL, "load the program");
  runtime.program = new Program(std::move(program.get()));
  auto meta = runtime.program->method_meta(METHOD);
  check(meta.error(), EXIT_MODEL, "find the method forward");
  plan_memory(runtime, meta.get());
  auto method = runtime.program->load_method(METHOD, runtime.manager);
  check(method.error(), EXIT_MODEL, "load the method forward");
  runtime.method = new Method(std::move(method.get()));
  describe(runtime, meta.get());
  place_inputs(runtime, meta.get());
  place_outputs(runtime, meta.get());
  check_ports(runtime, *plan);
  refuse_planned_slots(runtime, *plan);
  copies_make(&runtime.copies, plan->state_out_count);
  runtime.swaps = all_ours(runtime, *plan);
  self->state_loop = runtime.swaps ? "swap" : "copy";
}

delegate engine(backend* self) {
  const Runtime& runtime = of(self);
  return {runtime.delegates.empty() ? "none" : runtime.delegates.c_str(), runtime.accelerated,
          runtime.evidence.c_str()};
}

void* map(backend* self, side side, size_t index, bool) {
  Runtime& runtime = of(self);
  const plan& plan = *self->plan;
  if (side == SIDE_INPUT) return runtime.inputs[plan.inputs[index].port.position].data;
  if (side == SIDE_STATE_IN) return runtime.inputs[plan.state_ins[index].position].data;
  return runtime.outputs[plan.outputs[index].position].data;
}

void unmap(backend*, side, size_t) {}

void invoke(backend* self) { check(of(self).method->execute(), EXIT_RUN, "execute the method"); }

const Port& input_at(const Runtime& runtime, const plan& plan, const state& state, size_t at) {
  return runtime.inputs[plan.state_ins[state.in + at].position];
}

// The slots move up by one place, and `memory` becomes the last; returns that of the oldest, which is free now.
void* move_up(Runtime& runtime, const plan& plan, const state& state, void* memory) {
  for (size_t at = state.in_count; at-- > 0;) {
    void* held = input_at(runtime, plan, state, at).data;
    set_input(runtime, plan.state_ins[state.in + at].position, memory);
    memory = held;
  }
  return memory;
}

void swap(Runtime& runtime, const plan& plan, const state& state) {
  for (size_t step = 0; step < state.out_count; step++) {
    size_t given = plan.state_outs[state.out + step].position;
    set_output(runtime, given, move_up(runtime, plan, state, runtime.outputs[given].data));
  }
}

// Where the outputs have planned memory, slots still move by their pointers; the newest are copied behind them.
void copy(Runtime& runtime, const plan& plan, const state& state) {
  for (size_t step = 0; step < state.out_count && state.in_count > 1; step++) {
    move_up(runtime, plan, state, input_at(runtime, plan, state, 0).data);
  }
  for (size_t step = 0; step < state.out_count; step++) {
    const Port& from = runtime.outputs[plan.state_outs[state.out + step].position];
    void* to = input_at(runtime, plan, state, state.in_count - state.out_count + step).data;
    runtime.copies.list[state.out + step] = {from.data, to, from.bytes};
  }
}

void loop_states(backend* self) {
  Runtime& runtime = of(self);
  const plan& plan = *self->plan;
  for (size_t i = 0; i < plan.state_count; i++) (runtime.swaps ? swap : copy)(runtime, plan, plan.states[i]);
  if (!runtime.swaps) copies_run(&runtime.copies);
}

}  // namespace

void backend_make(backend* made, const plan* plan) {
  *made = backend{};
  made->api = "ExecuTorch";
  made->library = MVTOOL_LIBRARY;
  made->memory_includes = MVTOOL_MEMORY_INCLUDES;
  made->open_library = open_library;
  made->load_model = load_model;
  made->delegate = engine;
  made->map = map;
  made->unmap = unmap;
  made->invoke = invoke;
  made->loop_states = loop_states;
  made->plan = plan;
}
