declare const loader: {
  /** The folder of this package's package.json. */
  packageRoot: string;
  /** `require` for a native binary. */
  requireNative(file: string): unknown;
  /** `require` for a package that this one depends on. */
  requirePackage(name: string): unknown;
};
export = loader;
