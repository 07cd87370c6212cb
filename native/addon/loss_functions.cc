// Losses as functions of tensors, as addon/kernel_functions.cc has the other operations.
#include "addon/kernel_arguments.h"
#include "addon/loss_arguments.h"
#include "ops/sigmoid_loss/sigmoid_loss.h"

namespace siglip2::addon {
namespace {

// sigmoidLoss({ images [n, width], texts [m, width], positives?, logitScale, logitBias, gradients }): loss, and with
// gradients also gradImages [n, width], gradTexts [m, width], gradLogitScale, gradLogitBias
Napi::Value run_sigmoid_loss(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto images = arguments.activation("images", 2);
    const auto positives = to_positives(arguments.get("positives"));
    const auto texts =
        positives ? arguments.activation("texts", 2) : arguments.activation_of_shape("texts", images->shape);
    const double logit_scale = to_number(arguments.get("logitScale"), "logitScale");
    const double logit_bias = to_number(arguments.get("logitBias"), "logitBias");
    const bool gradients = to_boolean(arguments.get("gradients"), "gradients");
    Device& device = arguments.device();
    const int threads = arguments.threads();
    const std::optional<Timing> timing = to_timing(arguments.get("timing"));
    return Environment::of(info.Env()).submit(info.Env(), device.executor(), nullptr, [=, &device]() -> Finish {
      OpContext context = device.context(threads);
      SigmoidLossArgs args;
      args.images = matrix(*images);
      args.texts = matrix(*texts);
      if (positives) args.positives = positives->pairs("sigmoid_loss", args.images.rows);
      args.logit_scale = logit_scale;
      args.logit_bias = logit_bias;
      auto result = std::make_shared<SigmoidLossResult>();
      args.result = result.get();
      TensorPointer grad_images, grad_texts;
      DeviceBuffer workspace;
      if (gradients) {
        const std::int64_t m = args.texts.rows, rows = sigmoid_loss_workspace_rows(args.images.rows, m);
        const std::size_t workspace_bytes = static_cast<std::size_t>(rows * m) * sizeof(float);
        // Memory that nothing has been written to does not count as taken: refuse what cannot fit together first.
        {
          const auto elements = static_cast<std::size_t>(images->elements() + texts->elements());
          const DeviceBuffer all(device, elements * sizeof(float) + workspace_bytes);
        }
        grad_images = new_tensor(device, images->shape);
        grad_texts = new_tensor(device, texts->shape);
        workspace = DeviceBuffer(device, workspace_bytes);
        args.grad_images = matrix(*grad_images);
        args.grad_texts = matrix(*grad_texts);
        args.workspace = {workspace.data(), DType::kFloat32, rows, m, m};
      }
      std::vector<double> milliseconds;
      if (timing)
        milliseconds = time_runs(device, context, *timing, [&] { sigmoid_loss(device.table(), context, args); });
      sigmoid_loss(device.table(), context, args);
      return [=](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("loss", result->loss);
        set_milliseconds(env, object, milliseconds);
        if (gradients) {
          object.Set("gradImages", to_javascript(env, grad_images));
          object.Set("gradTexts", to_javascript(env, grad_texts));
          object.Set("gradLogitScale", result->grad_logit_scale);
          object.Set("gradLogitBias", result->grad_logit_bias);
        }
        return object;
      };
    });
  });
}

}  // namespace

void add_loss_functions(Napi::Env env, Napi::Object exports) {
  exports.Set("sigmoidLoss", Napi::Function::New(env, run_sigmoid_loss, "sigmoidLoss"));
}

}  // namespace siglip2::addon
