/** Every code a {@link SiglipError} can carry, with what it means to the caller. */
export type SiglipErrorCode =
  /** No native addon for this machine could be loaded; `details.attempts` lists what was tried. */
  | 'ERR_SIGLIP_NATIVE_NOT_FOUND'
  /** The requested device does not exist or cannot be used here. */
  | 'ERR_SIGLIP_NO_DEVICE'
  /** The CUDA runtime or driver reported an error. */
  | 'ERR_SIGLIP_CUDA'
  /** The work needs more memory than there is; `details.requestedBytes` and `details.freeBytes`. */
  | 'ERR_SIGLIP_OUT_OF_MEMORY'
  /** Tensor shapes that do not fit each other or the model. */
  | 'ERR_SIGLIP_SHAPE'
  /** Weights that are missing, damaged or do not fit the configuration. */
  | 'ERR_SIGLIP_CHECKPOINT'
  /** A configuration that is missing, damaged or describes an unsupported model. */
  | 'ERR_SIGLIP_CONFIG'
  /** A tokenizer that is missing, damaged or of an unsupported kind. */
  | 'ERR_SIGLIP_TOKENIZER'
  /** A picture that cannot be read, or is larger than the pixel limit. */
  | 'ERR_SIGLIP_IMAGE'
  /** Training data, or an index of embeddings, that is missing, damaged, of an unsupported kind or of another model. */
  | 'ERR_SIGLIP_DATA'
  /** The hub could not be reached or refused the request. */
  | 'ERR_SIGLIP_HUB'
  /** A file is not in the cache and the network may not be used. */
  | 'ERR_SIGLIP_OFFLINE'
  /** The caller's AbortSignal fired. */
  | 'ERR_SIGLIP_ABORTED'
  /** The object was used after `dispose()`. */
  | 'ERR_SIGLIP_DISPOSED'
  /** The request is valid but this build or device cannot do it. */
  | 'ERR_SIGLIP_UNSUPPORTED';

/**
 * An operational failure with a stable {@link code}. Mistakes in arguments are `TypeError` or `RangeError` instead.
 * `details` carries what a program may want to read (bytes, file names, shapes); `cause` the underlying error.
 */
export class SiglipError extends Error {
  override readonly name = 'SiglipError';
  readonly code: SiglipErrorCode;
  readonly details?: Record<string, unknown>;

  constructor(
    code: SiglipErrorCode,
    message: string,
    options: { details?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    if (options.details !== undefined) this.details = options.details;
  }
}
