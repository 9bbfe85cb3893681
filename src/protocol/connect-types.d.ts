/** A type of the web's that @connectrpc/connect names, and that @types/node has without giving it a global name. */
type HeadersInit = NonNullable<ConstructorParameters<typeof Headers>[0]>;
